/**
 * Repacking at load: sixteen rows of 16-bit weights, as a checkpoint stores them, into one panel [inputs][16].
 */

import { type Local, type ModuleBuilder, type V128, v128 } from "./assembler.ts";
import { placeInPanel } from "./linear-kernels.ts";

/** repack_16bit: 16 rows, `rowBytes` apart, `groups` of 8 inputs each, to a panel. */
export function addRepackKernel(module: ModuleBuilder): void {
  module.func("repack_16bit", { rows: "i32", rowBytes: "i32", panel: "i32", groups: "i32" }, null, (f, p) => {
    const source = f.local("i32");
    const a = Array.from({ length: 8 }, () => f.local("v128"));
    const b = Array.from({ length: 8 }, () => f.local("v128"));
    f.repeat(p.groups, () => {
      source.set(p.rows.get);
      for (const half of [0, 16]) {
        // Rows are taken as outputs come; where each stands in the panel is placeInPanel's to say.
        for (let output = 0; output < 8; output++) {
          a[placeInPanel("BF16", output)].set(v128.load(source.get));
          f.advance(source, p.rowBytes.get);
        }
        // Three rounds of interleaving, of 2, 4 and 8 bytes, transpose 8 x 8.
        interleave(a, b, 1, 2);
        interleave(b, a, 2, 4);
        interleave(a, b, 4, 8);
        f.storeVectors(
          p.panel.get,
          b.map(column => column.get),
          half,
          32,
        );
      }
      f.advance(p.rows, 16);
      f.advance(p.panel, 8 * 32);
    });
  });
}

/** Interleaves rows that lie `distance` apart in elements of `bytes`; the pair's two results go to adjacent places. */
function interleave(from: readonly Local<"v128">[], to: readonly Local<"v128">[], distance: number, bytes: number): void {
  const zip = (x: V128, y: V128, firstByte: number): V128 => {
    const indices: number[] = [];
    for (let i = firstByte; i < firstByte + 8; i += bytes) {
      for (const side of [0, 16]) for (let k = 0; k < bytes; k++) indices.push(side + i + k);
    }
    return v128.shuffle(x, y, indices);
  };
  let next = 0;
  for (let i = 0; i < 8; i++) {
    if (i & distance) continue;
    to[next++].set(zip(from[i].get, from[i + distance].get, 0));
    to[next++].set(zip(from[i].get, from[i + distance].get, 8));
  }
}
