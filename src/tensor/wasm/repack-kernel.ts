/**
 * Repacking at load: sixteen rows of 16-bit weights, as a checkpoint stores them, into one panel [inputs][16]; or of
 * pairs of 8-bit integers, into a block of a quantised panel.
 */

import { type Local, type ModuleBuilder, type V128, v128 } from "./assembler.ts";
import { VECTOR_BYTES, vectorLocals } from "./kernel-parts.ts";
import { PANEL, placeInPanel } from "./panel-layout.ts";

/** The 16 outputs of an input, or of a pair of 8-bit inputs: two bytes each. */
const PANEL_ROW = PANEL * 2;

export function addRepackKernels(module: ModuleBuilder): void {
  addRepack(module, "repack_16bit", output => placeInPanel("BF16", output));
  addRepack(module, "repack_pairs", output => output);
}

/**
 * repack_16bit, repack_pairs: 16 rows, `rowBytes` apart, `groups` of 8 inputs (or pairs) each, to a panel. `placeOf`
 * says where in a panel's row of 16 each of the first 8 outputs stands.
 */
function addRepack(module: ModuleBuilder, name: string, placeOf: (output: number) => number): void {
  module.func(name, { rows: "i32", rowBytes: "i32", panel: "i32", groups: "i32" }, null, (f, p) => {
    const source = f.local("i32");
    const [a, b] = [vectorLocals(f, 8), vectorLocals(f, 8)];
    f.repeat(p.groups, () => {
      source.set(p.rows.get);
      for (const half of [0, PANEL_ROW / 2]) {
        for (let output = 0; output < 8; output++) {
          a[placeOf(output)].set(v128.load(source.get));
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
          PANEL_ROW,
        );
      }
      f.advance(p.rows, VECTOR_BYTES);
      f.advance(p.panel, 8 * PANEL_ROW);
    });
  });
}

/** Interleaves rows that lie `distance` apart in elements of `bytes`; the pair's two results go to adjacent places. */
function interleave(
  from: readonly Local<"v128">[],
  to: readonly Local<"v128">[],
  distance: number,
  bytes: number,
): void {
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
