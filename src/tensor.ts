/** `import ... from "qwen3guard/tensor"`: safetensors files, tensors, and the reference operations. */

export { type ByteSource, bytesFromBlob, bytesFromBuffer } from "./checkpoint/bytes.ts";
export type { NamedSources } from "./checkpoint/files.ts";
export { SafetensorsFile, type TensorInfo } from "./checkpoint/safetensors.ts";
export { SafetensorsError } from "./checkpoint/safetensors-error.ts";
export { SafetensorsCheckpoint } from "./checkpoint/safetensors-sharded.ts";
export { safetensorsHeader, serializeSafetensors } from "./checkpoint/safetensors-writer.ts";
export { bf16ToFloat32, type Dtype, f16ToFloat32, float32ToBf16 } from "./tensor/dtype.ts";
export { exp32 } from "./tensor/elementary.ts";
export {
  addInto,
  argmax,
  attentionInto,
  embedInto,
  linearInto,
  rmsNormInto,
  ropeInto,
  SUM_BLOCK,
  siluMulInto,
  softmaxInto,
} from "./tensor/reference.ts";
export { Tensor, type TensorData } from "./tensor/tensor.ts";
