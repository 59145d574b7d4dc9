/**
 * Python's safetensors as the judge, where it is installed (`QWEN3GUARD_PYTHON`, else `python3`), and the npm package
 * of that name as far as it goes: it parses a header, does not validate it, and gives bytes.
 */

import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { bytesFromBuffer } from "../../src/checkpoint/bytes.ts";
import { SafetensorsFile } from "../../src/checkpoint/safetensors.ts";
import { SafetensorsError } from "../../src/checkpoint/safetensors-error.ts";
import { serializeSafetensors } from "../../src/checkpoint/safetensors-writer.ts";
import { DTYPES, type Dtype } from "../../src/tensor/dtype.ts";
import { Tensor, tensorByteLength } from "../../src/tensor/tensor.ts";
import { fileBytes } from "./safetensors-files.ts";

const root = join(import.meta.dirname, "../..");
const python = process.env.QWEN3GUARD_PYTHON ?? "python3";
const version = spawnSync(python, ["-c", "import numpy, safetensors; print(safetensors.__version__)"], {
  encoding: "utf8",
});
// The rules are those of 0.8.0; earlier ones lack dtypes.
const hasPython = version.status === 0 && version.stdout.trim() >= "0.8";

const folder = mkdtempSync(join(tmpdir(), "safetensors-"));
afterAll(() => rmSync(folder, { recursive: true }));

const real = [
  "models/tiny-guard-gen/model.safetensors",
  "test/fixtures/odd/model-00001-of-00003.safetensors",
  "test/goldens/odd/taps.safetensors",
];

/** One tensor of every dtype and some with names that are hard to sort and to quote. */
const tensors = [...DTYPES, ...(["F32", "F32", "U8", "U8", "U8"] as Dtype[])].map((dtype, i) => {
  const name = ["\ue000", "😀", 'q"\\\u0001\n\u2028', "é", ""][i - DTYPES.length] ?? `t.${(i * 7) % 23}`;
  const shape = i % 3 === 0 ? [0, 4] : [2, 4];
  return Tensor.fromBytes(
    name,
    dtype,
    shape,
    Uint8Array.from({ length: tensorByteLength(dtype, shape)! }, (_, k) => (i * 31 + k) & 255),
  );
});

describe.skipIf(!hasPython)("Python's safetensors", () => {
  test("writes the same bytes", () => {
    const ours = join(folder, "ours.safetensors");
    const theirs = join(folder, "theirs.safetensors");
    writeFileSync(
      ours,
      serializeSafetensors(
        tensors.filter(tensor => !tensor.dtype.startsWith("F6")),
        new Map([["format", "pt"]]),
      ),
    );
    const program = `
import sys, numpy, ctypes
from safetensors import TensorSpec, deserialize, serialize
# The serializer knows dtypes by torch's names, has none for F6, and counts pairs of F4.
names = dict(BOOL="bool", I8="int8", U8="uint8", I16="int16", U16="uint16", I32="int32", U32="uint32", I64="int64", U64="uint64",
    F16="float16", F32="float32", F64="float64", BF16="bfloat16", F8_E4M3="float8_e4m3fn", F8_E4M3FNUZ="float8_e4m3fnuz", F8_E5M2="float8_e5m2",
    F8_E5M2FNUZ="float8_e5m2fnuz", F8_E8M0="float8_e8m0fnu", F4="float4_e2m1fn_x2", C64="complex64")
out, keep = {}, []
for name, t in reversed(deserialize(open(sys.argv[1], "rb").read())):
    data = ctypes.create_string_buffer(bytes(t["data"]), max(1, len(t["data"])))
    keep.append(data)
    shape = t["shape"][:-1] + [t["shape"][-1] // 2] if t["dtype"] == "F4" else t["shape"]
    out[name] = TensorSpec(dtype=names[t["dtype"]], shape=shape, data_ptr=ctypes.addressof(data), data_len=len(t["data"]))
open(sys.argv[2], "wb").write(serialize(out, {"format": "pt"}))`;
    execFileSync(python, ["-c", program, ours, theirs]);
    expect(Buffer.compare(readFileSync(ours), readFileSync(theirs))).toBe(0);
  });

  test("reads what we write, as numpy arrays", () => {
    const path = join(folder, "numpy.safetensors");
    const numpyDtypes: Dtype[] = ["BOOL", "U8", "I8", "I16", "U16", "F16", "I32", "U32", "F32", "F64", "I64", "U64"];
    const some = tensors.filter(tensor => numpyDtypes.includes(tensor.dtype));
    writeFileSync(path, serializeSafetensors(some));
    const program = `
import sys, json, safetensors.numpy
print(json.dumps({n: [list(a.shape), a.tobytes().hex()] for n, a in safetensors.numpy.load(open(sys.argv[1], "rb").read()).items()}))`;
    const read = JSON.parse(execFileSync(python, ["-c", program, path], { encoding: "utf8" }));
    const expected = some.map(tensor => [tensor.name, [tensor.shape, Buffer.from(tensor.bytes()).toString("hex")]]);
    expect(read).toEqual(Object.fromEntries(expected));
  });

  test("reads the real files as we do", async () => {
    const program = `
import sys, json, zlib
from safetensors import deserialize
print(json.dumps([[n, t["dtype"], t["shape"], bytes(t["data"]).hex()] for n, t in deserialize(open(sys.argv[1], "rb").read())]))`;
    for (const path of real) {
      const theirs = JSON.parse(
        execFileSync(python, ["-c", program, join(root, path)], { encoding: "utf8", maxBuffer: 2 ** 26 }),
      );
      const file = await SafetensorsFile.open(bytesFromBuffer(new Uint8Array(readFileSync(join(root, path)))));
      expect(theirs.length).toBe(file.tensors.size);
      for (const [name, dtype, shape, hex] of theirs) {
        const tensor = await file.read(name);
        expect([tensor.dtype, tensor.shape]).toEqual([dtype, shape]);
        if (Buffer.from(tensor.bytes()).toString("hex") !== hex) expect.fail(`${path}: ${name} differs`);
      }
    }
  });

  test("accepts and refuses the same 3,000 broken headers", async () => {
    const files = brokenFiles(3000);
    const stream = Buffer.concat(files.flatMap(file => [Buffer.from(Uint32Array.of(file.length).buffer), file]));
    const program = `
import sys, struct
from safetensors import deserialize
data, at = sys.stdin.buffer.read(), 0
while at < len(data):
    n, = struct.unpack_from("<I", data, at)
    try:
        print(len(deserialize(data[at + 4:at + 4 + n])))
    except Exception:
        print(-1)
    at += 4 + n`;
    const answers = execFileSync(python, ["-c", program], { input: stream, encoding: "utf8" })
      .trim()
      .split("\n")
      .map(Number);
    let accepted = 0;
    for (const [i, file] of files.entries()) {
      const ours = await SafetensorsFile.open(bytesFromBuffer(file)).then(
        opened => opened.tensors.size,
        error => error,
      );
      // The one difference: a name that occurs twice. The reference looks only at the last one.
      const names = [...new TextDecoder("latin1").decode(file).matchAll(/"(\w)"\s*:/g)].map(match => match[1]);
      if (
        ours instanceof SafetensorsError &&
        (/expected one tensor of that name/.test(ours.message) || new Set(names).size < names.length)
      )
        continue;
      if (ours === answers[i]) accepted++;
      else if (!(ours instanceof SafetensorsError) || answers[i] !== -1) {
        expect.fail(`${Buffer.from(file).toString("latin1")}: Python says ${answers[i]}, we say ${ours}`);
      }
    }
    expect(accepted).toBeGreaterThan(300);
    expect(accepted).toBeLessThan(2700);
  });
});

/** The type of its function; the package has no declarations. */
interface SafeTensorOfNpm {
  getTensor(name: string): Uint8Array;
}

test("the npm package reads files without metadata as we do, and cannot read others", async () => {
  const npmPackage = "safetensors"; // a variable, since TypeScript would ask for declarations
  const imported = await import(npmPackage);
  const SafeTensor: new (bytes: Uint8Array) => SafeTensorOfNpm = (imported.default ?? imported).SafeTensor;
  const sources = [
    ...real.map(path => new Uint8Array(readFileSync(join(root, path)))),
    serializeSafetensors(tensors),
    serializeSafetensors([...(await readAll(real[0]))]),
  ];
  for (const bytes of sources) {
    const file = await SafetensorsFile.open(bytesFromBuffer(bytes));
    if (file.metadata.size > 0) {
      expect(() => new SafeTensor(bytes)).toThrow();
      continue;
    }
    const theirs = new SafeTensor(bytes);
    for (const { name } of file.tensors.values()) {
      if (Buffer.compare(theirs.getTensor(name), (await file.read(name)).bytes()) !== 0) expect.fail(`${name} differs`);
    }
  }
});

async function readAll(path: string): Promise<Iterable<Tensor>> {
  const file = await SafetensorsFile.open(bytesFromBuffer(new Uint8Array(readFileSync(join(root, path)))));
  return (await file.readAll()).values();
}

/** Files with one or two mistakes from a list, by a small generator of random numbers (Park and Miller's). */
function brokenFiles(count: number): Uint8Array[] {
  let state = 7;
  const random = (below: number): number => {
    state = (state * 48271) % 2147483647;
    return state % below;
  };
  const values = [
    "0",
    "1",
    "-0",
    "1.0",
    "1e400",
    "1e-400",
    "01",
    "18446744073709551615",
    "18446744073709551616",
    "null",
    "[]",
    "{}",
    '"U8"',
    '"\\ud83d"',
    '"\\ud83d\\ude00"',
  ];
  const mistakes: ((header: string) => string)[] = [
    header => header,
    header => header.replace('"shape":[', `"shape":[${values[random(values.length)]},`),
    header => header.replace('"dtype":"U8"', '"dtype":{"U8":null}'),
    header => header.replace('"dtype":', `"x":${values[random(values.length)]},"dtype":`),
    header => header.replace('"dtype":', `"x":${"[".repeat(123 + random(5))}`),
    header => header.replace('"dtype":', `"x":${"[".repeat(125)}${"]".repeat(124 + random(2))},"dtype":`),
    header => header.replace(/\[(\d),/, `[${values[random(values.length)]},`),
    header =>
      header.replace(
        /^\{/,
        `{"__metadata__":${['{"a":"b"}', "null", '{"a":1}', "[]", '{"a":"b","a":"c"}'][random(5)]},`,
      ),
    header => header.replace('"a"', ['"b"', '"\\u0061"', '"\\x"', '"\n"', '""'][random(5)]),
    header => header + ["", " ", "\n", "x", "{}"][random(5)],
    header => header.replace(/[,:]/, ["", ",", ":", " , "][random(4)]),
    header => header.slice(0, random(header.length + 1)) + header.slice(random(header.length + 1)),
    header => header.replaceAll(":", " : \t\r\n"),
  ];
  return Array.from({ length: count }, () => {
    let header =
      '{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"F16","shape":[1,2],"data_offsets":[2,6]},"c":["F4",[0],[6,6]]}';
    for (let i = random(2); i >= 0; i--) header = mistakes[random(mistakes.length)](header);
    return fileBytes(header, 6);
  });
}
