/**
 * ONNX Runtime compiled to WebAssembly as a peer, the engine of transformers.js: `node peer-ort-web.ts JOB`, the job's
 * `variant` being the folder of the npm installation.
 *
 * Its sessions return keys and values with every run and take them with the next. They are cut here when the job
 * forgets positions.
 */

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { measure, type Peer, readJob } from "./measure.ts";

/** The part of onnxruntime-web that is used here; the package is not a dependency of this project. */
interface OrtWeb {
  readonly env: { readonly wasm: { numThreads: number } };
  readonly Tensor: new (
    type: "int64" | "float32",
    data: BigInt64Array | Float32Array,
    dims: readonly number[],
  ) => OrtTensor;
  readonly InferenceSession: {
    create(
      model: Uint8Array,
      options: { executionProviders: ["wasm"]; externalData: { path: string; data: Uint8Array }[] },
    ): Promise<{
      readonly inputNames: readonly string[];
      run(feeds: Record<string, OrtTensor>): Promise<Record<string, OrtTensor>>;
    }>;
  };
}

interface OrtTensor {
  readonly data: Float32Array | BigInt64Array;
  readonly dims: readonly number[];
}

/** The part of genai_config.json that is used here. */
interface GenAiConfig {
  readonly model: { readonly decoder: { readonly num_key_value_heads: number; readonly head_size: number } };
}

/** Keys or values of one layer: [1, heads, positions, size]. */
function cut({ data, dims }: OrtTensor, position: number): Float32Array {
  const [, heads, positions, size] = dims;
  const kept = new Float32Array(heads * position * size);
  for (let head = 0; head < heads; head++) {
    kept.set(
      (data as Float32Array).subarray(head * positions * size, (head * positions + position) * size),
      head * position * size,
    );
  }
  return kept;
}

const job = readJob();
const ort = (await import(
  pathToFileURL(join(job.variant, "node_modules", "onnxruntime-web", "dist", "ort.node.min.mjs")).href
)) as OrtWeb;
ort.env.wasm.numThreads = job.threads;

await measure(job, async (): Promise<Peer> => {
  const read = (name: string): Promise<Uint8Array> => readFile(join(job.path, name));
  const config = JSON.parse(new TextDecoder().decode(await read("genai_config.json"))) as GenAiConfig;
  const { num_key_value_heads: heads, head_size: size } = config.model.decoder;
  const model = await read("model.onnx");
  const externalData = [{ path: "model.onnx.data", data: await read("model.onnx.data") }];
  const session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"], externalData });
  const pasts = session.inputNames.filter(name => name.startsWith("past_key_values."));
  const noPast = (): Record<string, OrtTensor> =>
    Object.fromEntries(pasts.map(name => [name, new ort.Tensor("float32", new Float32Array(0), [1, heads, 0, size])]));
  let past = noPast();
  let length = 0;
  return {
    async forward(ids) {
      length += ids.length;
      const outputs = await session.run({
        input_ids: new ort.Tensor("int64", BigInt64Array.from(ids, BigInt), [1, ids.length]),
        attention_mask: new ort.Tensor("int64", new BigInt64Array(length).fill(1n), [1, length]),
        ...past,
      });
      past = Object.fromEntries(pasts.map(name => [name, outputs[name.replace("past_key_values", "present")]]));
      const logits = outputs.logits.data as Float32Array;
      return logits.indexOf(logits.reduce((a, b) => Math.max(a, b)));
    },
    async truncate(position) {
      if (position === 0) past = noPast();
      else
        for (const name of pasts)
          past[name] = new ort.Tensor("float32", cut(past[name], position), [1, heads, position, size]);
      length = position;
    },
  };
});
