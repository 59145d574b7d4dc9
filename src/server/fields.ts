/**
 * Reads the fields of a request by type and range.
 *
 * In: a JSON object. Out: values, or an ApiError that names the field. As with OpenAI, a field that is null is missing.
 */

import { ApiError, describe, invalid, unsupported } from "./api-error.ts";

export class Fields {
  readonly #values: Readonly<Record<string, unknown>>;
  readonly #path: string;

  /** `path` comes before field names in error messages: "messages[0].". */
  constructor(values: unknown, path: string = "") {
    if (typeof values !== "object" || values === null || Array.isArray(values)) {
      throw invalid(path.replace(/\.$/, ""), "an object", describe(values));
    }
    this.#values = values as Record<string, unknown>;
    this.#path = path;
  }

  /** The names of all fields, including those whose value is null. */
  get allNames(): string[] {
    return Object.keys(this.#values);
  }

  get names(): string[] {
    return Object.keys(this.#values).filter(name => this.get(name) !== undefined);
  }

  /** undefined if the field is missing or null. */
  get(name: string): unknown {
    return Object.hasOwn(this.#values, name) ? (this.#values[name] ?? undefined) : undefined;
  }

  /** The fields of an object that is required. */
  inner(name: string): Fields {
    return new Fields(this.get(name), `${this.#path}${name}.`);
  }

  string(name: string): string | undefined {
    const value = this.get(name);
    if (value !== undefined && typeof value !== "string") throw this.#invalid(name, "a string", value);
    return value;
  }

  boolean(name: string): boolean | undefined {
    const value = this.get(name);
    if (value !== undefined && typeof value !== "boolean") throw this.#invalid(name, "true or false", value);
    return value;
  }

  number(name: string, min: number, max: number): number | undefined {
    const value = this.get(name);
    if (value === undefined) return undefined;
    if (typeof value !== "number" || !(value >= min && value <= max))
      throw this.#invalid(name, `a number from ${min} to ${max}`, value);
    return value;
  }

  integer(name: string, min: number, max: number): number | undefined {
    const value = this.get(name);
    if (value === undefined) return undefined;
    if (typeof value !== "number" || !Number.isSafeInteger(value) || value < min || value > max) {
      throw this.#invalid(name, `an integer from ${min} to ${max}`, value);
    }
    return value;
  }

  /** An array that is required and has at least one entry. */
  array(name: string): unknown[] {
    const value = this.get(name);
    if (!Array.isArray(value)) throw this.#invalid(name, "an array", value);
    if (value.length === 0) throw this.invalid(name, "at least one entry", "none");
    return value;
  }

  oneOf<T extends string>(name: string, values: readonly T[]): T | undefined {
    const value = this.get(name);
    if (value === undefined) return undefined;
    if (!values.includes(value as T)) throw this.#invalid(name, values.join(" or "), value);
    return value as T;
  }

  /**
   * Refuses every field that is not `known` by its name. A field that OpenAI has but a guard cannot honour gets a 422,
   * unless its value asks for nothing; an unknown field gets a 400.
   */
  refuseOthers(known: readonly string[], refused: Readonly<Record<string, Refused>> = {}): void {
    for (const name of this.names) {
      if (known.includes(name)) continue;
      const param = this.#path + name;
      if (!Object.hasOwn(refused, name)) {
        throw new ApiError(400, `${describe(param)}: expected a known field, got none of that name`, {
          param,
          code: "unknown_parameter",
        });
      }
      const { reason, unless } = refused[name];
      if (!unless.includes(JSON.stringify(this.get(name)))) throw unsupported(param, reason);
    }
  }

  invalid(name: string, expected: string, got: string): ApiError {
    return invalid(this.#path + name, expected, got);
  }

  unsupported(name: string, reason: string): ApiError {
    return unsupported(this.#path + name, reason);
  }

  #invalid(name: string, expected: string, value: unknown): ApiError {
    return this.invalid(name, expected, describe(value));
  }
}

export interface Refused {
  readonly reason: string;
  /** Values, as JSON, that ask for nothing and are accepted. */
  readonly unless: readonly string[];
}

/** The text of a `content` or an `input`: a string, or an array of text parts, joined by line breaks as in vLLM. */
export function textOf(content: unknown, path: string): string {
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) throw invalid(path, "a string or an array of text parts", describe(content));
  if (content.length === 0) throw invalid(path, "at least one part", "none");
  return content
    .map((part, i) => {
      const fields = new Fields(part, `${path}[${i}].`);
      const type = fields.string("type");
      if (type !== "text" && type !== "input_text") {
        if (type === undefined) throw invalid(`${path}[${i}].type`, '"text"', "nothing");
        throw unsupported(`${path}[${i}].type`, `a guard reads only text, got ${describe(type)}`);
      }
      const text = fields.string("text");
      if (text === undefined) throw invalid(`${path}[${i}].text`, "a string", "nothing");
      return text;
    })
    .join("\n");
}
