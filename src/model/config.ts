/**
 * Qwen3's config.json: read, checked, frozen.
 *
 * In: the parsed JSON of config.json and generation_config.json. Out: a `Qwen3Config` whose every number can be
 * trusted, because anything not implemented or out of range is refused here, by name. Nothing downstream checks again.
 *
 * A surprise: `numHeads * headDim` is not `hiddenSize` (2048 and 1024 for 0.6B), so no size is ever derived from
 * another.
 */

/**
 * The `quant_method` of checkpoints that `qwen3guard quantize` wrote. Their weights' files say how they are quantised.
 */
export const QUANT_METHOD = "qwen3guard";

/** The sizes and constants of one Qwen3 checkpoint, named as in its config. */
export interface Qwen3Config {
  readonly architecture: "Qwen3ForCausalLM" | "Qwen3ForGuardModel";
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numHiddenLayers: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly rmsNormEps: number;
  readonly ropeTheta: number;
  /** The longest sequence in tokens, prompt and answer together. */
  readonly maxPositionEmbeddings: number;
  readonly tieWordEmbeddings: boolean;
  /** The ids that end an answer, from generation_config.json if it names any, else from config.json. */
  readonly stopIds: readonly number[];
  /** The classification heads of a Stream checkpoint. A Gen checkpoint has none. */
  readonly guardHeads?: GuardHeadsConfig;
}

/** A Stream checkpoint's label names by class index, and the inner size of its heads. */
export interface GuardHeadsConfig {
  readonly innerSize: number;
  readonly responseRiskLevels: readonly string[];
  readonly responseCategories: readonly string[];
  readonly queryRiskLevels: readonly string[];
  readonly queryCategories: readonly string[];
}

type Json = Readonly<Record<string, unknown>>;

/**
 * Bounds that no checkpoint of the family comes near. They keep products of sizes exact and angles within the rotary
 * table's range.
 */
const MAX_SIZE = 2 ** 24;
const MAX_CONTEXT = 2 ** 20;

/**
 * Reads the contents of the two files. `name` (the folder) stands in messages. Throws TypeError or RangeError,
 * `<name>/config.json: <key>: expected ..., got ...`.
 */
export function parseConfig(config: unknown, generationConfig: unknown, name: string): Qwen3Config {
  const file = `${name}/config.json`;
  const json = object(config, file);

  expectText(json, "model_type", "qwen3", file);
  if (json.hidden_act !== undefined) expectText(json, "hidden_act", "silu", file);
  if (json.attention_bias) refuse(file, "attention_bias", "false (biases are not implemented)", json.attention_bias);
  if (json.use_sliding_window)
    refuse(file, "use_sliding_window", "false (sliding windows are not implemented)", json.use_sliding_window);
  if (Array.isArray(json.layer_types) && json.layer_types.some(type => type !== "full_attention")) {
    refuse(
      file,
      "layer_types",
      'only "full_attention"',
      json.layer_types.find(type => type !== "full_attention"),
    );
  }
  const quantisation = json.quantization_config;
  if (
    quantisation !== undefined &&
    quantisation !== null &&
    object(quantisation, file, "quantization_config").quant_method !== QUANT_METHOD
  ) {
    const expected = `none, or quant_method "${QUANT_METHOD}" (others are not implemented)`;
    refuse(file, "quantization_config", expected, quantisation);
  }
  const architectures = Array.isArray(json.architectures) ? json.architectures : ["Qwen3ForCausalLM"];
  const architecture = architectures[0];
  if (architecture !== "Qwen3ForCausalLM" && architecture !== "Qwen3ForGuardModel") {
    refuse(file, "architectures", '"Qwen3ForCausalLM" or "Qwen3ForGuardModel"', architecture);
  }

  const numHeads = size(json, "num_attention_heads", file);
  const numKvHeads = size(json, "num_key_value_heads", file);
  if (numHeads % numKvHeads !== 0)
    refuse(file, "num_key_value_heads", `a divisor of num_attention_heads (${numHeads})`, numKvHeads);
  const headDim = size(json, "head_dim", file);
  if (headDim % 2 !== 0) refuse(file, "head_dim", "an even number (rotation pairs the halves)", headDim);
  const vocabSize = size(json, "vocab_size", file);

  return Object.freeze({
    architecture,
    vocabSize,
    hiddenSize: size(json, "hidden_size", file),
    intermediateSize: size(json, "intermediate_size", file),
    numHiddenLayers: size(json, "num_hidden_layers", file, 4096),
    numHeads,
    numKvHeads,
    headDim,
    rmsNormEps: positive(json.rms_norm_eps ?? 1e-6, "rms_norm_eps", file, 1),
    ropeTheta: ropeTheta(json, file),
    maxPositionEmbeddings: size(json, "max_position_embeddings", file, MAX_CONTEXT),
    tieWordEmbeddings: flag(json, "tie_word_embeddings", file),
    stopIds: stopIds(json, generationConfig, name, vocabSize),
    ...(architecture === "Qwen3ForGuardModel" ? { guardHeads: guardHeads(json, file) } : {}),
  });
}

/** The base of the rotary frequencies. transformers 5 moved it, with the scaling, into `rope_parameters`. */
function ropeTheta(json: Json, file: string): number {
  for (const key of ["rope_scaling", "rope_parameters"]) {
    const parameters = json[key];
    if (parameters === undefined || parameters === null) continue;
    const type = object(parameters, file, key).rope_type ?? object(parameters, file, key).type;
    if (type !== "default")
      refuse(file, key, 'null or rope_type "default" (scaled rotary embeddings are not implemented)', parameters);
  }
  const inner = json.rope_parameters as Json | null | undefined;
  return positive(json.rope_theta ?? inner?.rope_theta, "rope_theta", file, 1e12);
}

function stopIds(json: Json, generationConfig: unknown, name: string, vocabSize: number): readonly number[] {
  const generation = generationConfig === undefined ? {} : object(generationConfig, `${name}/generation_config.json`);
  const named = generation.eos_token_id;
  const fromGeneration = named !== undefined && named !== null && !(Array.isArray(named) && named.length === 0);
  const file = fromGeneration ? `${name}/generation_config.json` : `${name}/config.json`;
  const value = fromGeneration ? generation.eos_token_id : json.eos_token_id;
  if (value === undefined || value === null) return Object.freeze([]);
  const ids = Array.isArray(value) ? value : [value];
  for (const id of ids) {
    if (!Number.isInteger(id) || id < 0 || id >= vocabSize)
      refuse(file, "eos_token_id", `ids from 0 to ${vocabSize - 1}`, id);
  }
  return Object.freeze([...new Set<number>(ids)]);
}

function guardHeads(json: Json, file: string): GuardHeadsConfig {
  const labels = (key: string, countKey: string): readonly string[] => {
    const map = object(json[key], file, key);
    const count = Object.keys(map).length;
    if (count === 0 || count > 1024) refuse(file, key, "1 to 1024 labels", count);
    const names = Array.from({ length: count }, (_, i) => map[String(i)]);
    for (const [i, label] of names.entries())
      if (typeof label !== "string") refuse(file, `${key}.${i}`, "a label", label);
    if (json[countKey] !== undefined && json[countKey] !== count)
      refuse(file, countKey, `the size of ${key} (${count})`, json[countKey]);
    return Object.freeze(names as string[]);
  };
  return Object.freeze({
    innerSize: size(json, "guard_inner_size", file),
    responseRiskLevels: labels("response_risk_level_map", "num_risk_level"),
    responseCategories: labels("response_category_map", "num_category"),
    queryRiskLevels: labels("query_risk_level_map", "num_query_risk_level"),
    queryCategories: labels("query_category_map", "num_query_category"),
  });
}

function object(value: unknown, file: string, key?: string): Json {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new TypeError(`${file}${key ? `: ${key}` : ""}: expected a JSON object, got ${show(value)}`);
  }
  return value as Json;
}

function size(json: Json, key: string, file: string, max: number = MAX_SIZE): number {
  const value = json[key];
  if (typeof value !== "number" || !Number.isInteger(value) || value < 1 || value > max) {
    refuse(file, key, `an integer from 1 to ${max}`, value);
  }
  return value;
}

function positive(value: unknown, key: string, file: string, max: number): number {
  if (typeof value !== "number" || !(value > 0 && value <= max))
    refuse(file, key, `a number above 0 and at most ${max}`, value);
  return value;
}

function flag(json: Json, key: string, file: string): boolean {
  const value = json[key] ?? false;
  if (typeof value !== "boolean") refuse(file, key, "true or false", value);
  return value;
}

function expectText(json: Json, key: string, text: string, file: string): void {
  if (json[key] !== text) refuse(file, key, `"${text}"`, json[key]);
}

function refuse(file: string, key: string, expected: string, got: unknown): never {
  throw new RangeError(`${file}: ${key}: expected ${expected}, got ${show(got)}`);
}

/** A value as JSON. A value nested too deep for the stack gets words instead. */
function jsonOf(value: unknown): string {
  try {
    return JSON.stringify(value);
  } catch {
    return "a value that is nested too deep";
  }
}

/** A value for a message, as shortened JSON. */
function show(value: unknown): string {
  const text = value === undefined ? "nothing" : jsonOf(value);
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}
