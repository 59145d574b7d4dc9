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
  const json: Fields = new Fields(config, `${name}/config.json`);
  checkImplemented(json);
  const architecture = readArchitecture(json);
  const numHeads = json.size("num_attention_heads");
  const numKvHeads = json.size("num_key_value_heads");
  if (numHeads % numKvHeads !== 0)
    json.refuse("num_key_value_heads", `a divisor of num_attention_heads (${numHeads})`, numKvHeads);
  const headDim = json.size("head_dim");
  if (headDim % 2 !== 0) json.refuse("head_dim", "an even number (rotation pairs the halves)", headDim);
  const vocabSize = json.size("vocab_size");

  return Object.freeze({
    architecture,
    vocabSize,
    hiddenSize: json.size("hidden_size"),
    intermediateSize: json.size("intermediate_size"),
    numHiddenLayers: json.size("num_hidden_layers", 4096),
    numHeads,
    numKvHeads,
    headDim,
    rmsNormEps: json.positive("rms_norm_eps", json.value("rms_norm_eps") ?? 1e-6, 1),
    ropeTheta: ropeTheta(json),
    maxPositionEmbeddings: json.size("max_position_embeddings", MAX_CONTEXT),
    tieWordEmbeddings: json.flag("tie_word_embeddings"),
    stopIds: stopIds(json, generationConfig, name, vocabSize),
    ...(architecture === "Qwen3ForGuardModel" ? { guardHeads: guardHeads(json) } : {}),
  });
}

/** Refuses what this engine does not compute. */
function checkImplemented(json: Fields): void {
  json.expectText("model_type", "qwen3");
  if (json.value("hidden_act") !== undefined) json.expectText("hidden_act", "silu");
  if (json.value("attention_bias")) json.refuse("attention_bias", "false (biases are not implemented)");
  if (json.value("use_sliding_window"))
    json.refuse("use_sliding_window", "false (sliding windows are not implemented)");
  const layerTypes = json.value("layer_types");
  for (const type of Array.isArray(layerTypes) ? layerTypes : [])
    if (type !== "full_attention") json.refuse("layer_types", 'only "full_attention"', type);
  const quantisation = json.value("quantization_config");
  if (
    quantisation !== undefined &&
    quantisation !== null &&
    json.object("quantization_config").quant_method !== QUANT_METHOD
  ) {
    json.refuse("quantization_config", `none, or quant_method "${QUANT_METHOD}" (others are not implemented)`);
  }
}

function readArchitecture(json: Fields): Qwen3Config["architecture"] {
  const named = json.value("architectures");
  const architecture = Array.isArray(named) ? named[0] : "Qwen3ForCausalLM";
  if (architecture === "Qwen3ForCausalLM" || architecture === "Qwen3ForGuardModel") return architecture;
  return json.refuse("architectures", '"Qwen3ForCausalLM" or "Qwen3ForGuardModel"', architecture);
}

/** The base of the rotary frequencies. transformers 5 moved it, with the scaling, into `rope_parameters`. */
function ropeTheta(json: Fields): number {
  for (const key of ["rope_scaling", "rope_parameters"]) {
    const parameters = json.value(key);
    if (parameters === undefined || parameters === null) continue;
    const { rope_type, type } = json.object(key);
    if ((rope_type ?? type) !== "default")
      json.refuse(key, 'null or rope_type "default" (scaled rotary embeddings are not implemented)');
  }
  const inner = json.value("rope_parameters") as Json | null | undefined;
  return json.positive("rope_theta", json.value("rope_theta") ?? inner?.rope_theta, 1e12);
}

function stopIds(config: Fields, generationConfig: unknown, name: string, vocabSize: number): readonly number[] {
  const generation = new Fields(
    generationConfig === undefined ? {} : generationConfig,
    `${name}/generation_config.json`,
  );
  const named = generation.value("eos_token_id");
  const isNamed = named !== undefined && named !== null && !(Array.isArray(named) && named.length === 0);
  const json: Fields = isNamed ? generation : config;
  const value = json.value("eos_token_id");
  if (value === undefined || value === null) return Object.freeze([]);
  const ids = Array.isArray(value) ? value : [value];
  for (const id of ids) {
    if (!Number.isInteger(id) || id < 0 || id >= vocabSize)
      json.refuse("eos_token_id", `ids from 0 to ${vocabSize - 1}`, id);
  }
  return Object.freeze([...new Set<number>(ids)]);
}

function guardHeads(json: Fields): GuardHeadsConfig {
  const labels = (key: string, countKey: string): readonly string[] => {
    const map = json.object(key);
    const count = Object.keys(map).length;
    if (count === 0 || count > 1024) json.refuse(key, "1 to 1024 labels", count);
    const names = Array.from({ length: count }, (_, i) => map[String(i)]);
    for (const [i, label] of names.entries())
      if (typeof label !== "string") json.refuse(`${key}.${i}`, "a label", label);
    const counted = json.value(countKey);
    if (counted !== undefined && counted !== count) json.refuse(countKey, `the size of ${key} (${count})`);
    return Object.freeze(names as string[]);
  };
  return Object.freeze({
    innerSize: json.size("guard_inner_size"),
    responseRiskLevels: labels("response_risk_level_map", "num_risk_level"),
    responseCategories: labels("response_category_map", "num_category"),
    queryRiskLevels: labels("query_risk_level_map", "num_query_risk_level"),
    queryCategories: labels("query_category_map", "num_query_category"),
  });
}

/** The fields of a JSON file. Every message names the file and the key. */
class Fields {
  readonly #json: Json;
  readonly #file: string;

  /** Throws TypeError for anything but a JSON object. */
  constructor(json: unknown, file: string) {
    this.#json = object(json, file);
    this.#file = file;
  }

  /** The value as it is in the file. */
  value(key: string): unknown {
    return this.#json[key];
  }

  object(key: string): Json {
    return object(this.value(key), `${this.#file}: ${key}`);
  }

  size(key: string, max: number = MAX_SIZE): number {
    const value = this.value(key);
    if (typeof value !== "number" || !Number.isInteger(value) || value < 1 || value > max)
      return this.refuse(key, `an integer from 1 to ${max}`);
    return value;
  }

  /** `value` is that of `key`, or what stands in for it. */
  positive(key: string, value: unknown, max: number): number {
    if (typeof value !== "number" || !(value > 0 && value <= max))
      return this.refuse(key, `a number above 0 and at most ${max}`, value);
    return value;
  }

  flag(key: string): boolean {
    const value = this.value(key) ?? false;
    return typeof value === "boolean" ? value : this.refuse(key, "true or false");
  }

  expectText(key: string, text: string): void {
    if (this.value(key) !== text) this.refuse(key, `"${text}"`);
  }

  refuse(key: string, expected: string, got: unknown = this.value(key)): never {
    throw new RangeError(`${this.#file}: ${key}: expected ${expected}, got ${show(got)}`);
  }
}

function object(value: unknown, what: string): Json {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new TypeError(`${what}: expected a JSON object, got ${show(value)}`);
  return value as Json;
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
