/**
 * A small assembler for WebAssembly: TypeScript expressions that write the bytes of a module.
 *
 * In: functions built from typed expressions. Out: the module's bytes, for `new WebAssembly.Module`. No text format, no
 * optimiser, no build tool: V8's own compiler does the rest. An expression is the list of bytes that leaves one value
 * on the stack, so composing expressions is concatenating bytes. Opcodes:
 * https://webassembly.github.io/spec/core/binary/instructions.html
 *
 *     const module = new ModuleBuilder();
 *     module.func("triple", { x: "f32" }, "f32", (f, { x }) => f.return(f32.mul(x.get, f32.const(3))));
 */

export type ValueType = "i32" | "f32" | "v128";
const TYPE_CODES: { readonly [type in ValueType]: number } = { i32: 0x7f, f32: 0x7d, v128: 0x7b };

/** Code that leaves one value of type T on the stack. The type exists for the compiler's checks alone. */
export interface Expr<T extends ValueType> {
  readonly type: T;
  readonly code: readonly number[];
}
export type I32 = Expr<"i32">;
export type F32 = Expr<"f32">;
export type V128 = Expr<"v128">;

// ---------------------------------------------------------------------------------------------------------------------
// encoding

/** Unsigned LEB128. */
export function uleb(value: number): number[] {
  const out: number[] = [];
  let rest = value >>> 0;
  do {
    const byte = rest & 0x7f;
    rest >>>= 7;
    out.push(rest === 0 ? byte : byte | 0x80);
  } while (rest !== 0);
  return out;
}

/** Signed LEB128 of a 32-bit integer. */
export function sleb(value: number): number[] {
  const out: number[] = [];
  let rest = value | 0;
  for (;;) {
    const byte = rest & 0x7f;
    rest >>= 7;
    const done = (rest === 0 && (byte & 0x40) === 0) || (rest === -1 && (byte & 0x40) !== 0);
    out.push(done ? byte : byte | 0x80);
    if (done) return out;
  }
}

function floatBytes(value: number): number[] {
  return Array.from(new Uint8Array(Float32Array.of(value).buffer));
}

function vector(items: readonly (readonly number[])[]): number[] {
  return [...uleb(items.length), ...items.flat()];
}

function section(id: number, content: readonly number[]): number[] {
  return [id, ...uleb(content.length), ...content];
}

function text(value: string): number[] {
  const bytes = Array.from(new TextEncoder().encode(value));
  return [...uleb(bytes.length), ...bytes];
}

const simd = (opcode: number): number[] => [0xfd, ...uleb(opcode)];
/** Alignment (as a power of two) and constant offset of a memory access. */
const access = (align: number, offset: number): number[] => [align, ...uleb(offset)];

// ---------------------------------------------------------------------------------------------------------------------
// instructions

function expr<T extends ValueType>(type: T, ...parts: readonly (readonly number[])[]): Expr<T> {
  return { type, code: parts.flat() };
}

type Unary<A extends ValueType, R extends ValueType> = (a: Expr<A>) => Expr<R>;
type Binary<A extends ValueType, R extends ValueType> = (a: Expr<A>, b: Expr<A>) => Expr<R>;

const unary =
  <A extends ValueType, R extends ValueType>(result: R, opcode: readonly number[]): Unary<A, R> =>
  a =>
    expr(result, a.code, opcode);
const binary =
  <A extends ValueType, R extends ValueType>(result: R, opcode: readonly number[]): Binary<A, R> =>
  (a, b) =>
    expr(result, a.code, b.code, opcode);
const shift =
  (opcode: readonly number[]) =>
  (a: V128, bits: number): V128 =>
    expr("v128", a.code, i32.const(bits).code, opcode);

export const i32 = {
  const: (value: number): I32 => expr("i32", [0x41], sleb(value)),
  add: binary<"i32", "i32">("i32", [0x6a]),
  sub: binary<"i32", "i32">("i32", [0x6b]),
  mul: binary<"i32", "i32">("i32", [0x6c]),
  and: binary<"i32", "i32">("i32", [0x71]),
  or: binary<"i32", "i32">("i32", [0x72]),
  shl: binary<"i32", "i32">("i32", [0x74]),
  shrU: binary<"i32", "i32">("i32", [0x76]),
  eqz: unary<"i32", "i32">("i32", [0x45]),
  eq: binary<"i32", "i32">("i32", [0x46]),
  ne: binary<"i32", "i32">("i32", [0x47]),
  ltU: binary<"i32", "i32">("i32", [0x49]),
  gtU: binary<"i32", "i32">("i32", [0x4b]),
  load16U: (pointer: I32, offset: number = 0): I32 => expr("i32", pointer.code, [0x2f], access(1, offset)),
  load: (pointer: I32, offset: number = 0): I32 => expr("i32", pointer.code, [0x28], access(2, offset)),
  /** float32 to integer, NaN to 0, out of range to the nearest. */
  truncSat: unary<"f32", "i32">("i32", [0xfc, 0x00]),
  /** a where the condition is not zero, else b. */
  select: (condition: I32, a: I32, b: I32): I32 => expr("i32", a.code, b.code, condition.code, [0x1b]),
} as const;

export const f32 = {
  const: (value: number): F32 => expr("f32", [0x43], floatBytes(value)),
  add: binary<"f32", "f32">("f32", [0x92]),
  sub: binary<"f32", "f32">("f32", [0x93]),
  mul: binary<"f32", "f32">("f32", [0x94]),
  div: binary<"f32", "f32">("f32", [0x95]),
  abs: unary<"f32", "f32">("f32", [0x8b]),
  neg: unary<"f32", "f32">("f32", [0x8c]),
  nearest: unary<"f32", "f32">("f32", [0x90]),
  sqrt: unary<"f32", "f32">("f32", [0x91]),
  min: binary<"f32", "f32">("f32", [0x96]),
  max: binary<"f32", "f32">("f32", [0x97]),
  lt: binary<"f32", "i32">("i32", [0x5d]),
  gt: binary<"f32", "i32">("i32", [0x5e]),
  ne: binary<"f32", "i32">("i32", [0x5c]),
  fromBits: unary<"i32", "f32">("f32", [0xbe]),
  load: (pointer: I32, offset: number = 0): F32 => expr("f32", pointer.code, [0x2a], access(2, offset)),
} as const;

export const v128 = {
  load: (pointer: I32, offset: number = 0): V128 => expr("v128", pointer.code, simd(0), access(2, offset)),
  /** Four 16-bit integers, zero-extended to 32 bits. */
  load16x4U: (pointer: I32, offset: number = 0): V128 => expr("v128", pointer.code, simd(4), access(1, offset)),
  /** Eight 8-bit integers, sign-extended to 16 bits. */
  load8x8S: (pointer: I32, offset: number = 0): V128 => expr("v128", pointer.code, simd(1), access(0, offset)),
  load32Splat: (pointer: I32, offset: number = 0): V128 => expr("v128", pointer.code, simd(9), access(2, offset)),
  /** The bytes of a (0..15) and b (16..31) that `indices` name. */
  shuffle: (a: V128, b: V128, indices: readonly number[]): V128 => expr("v128", a.code, b.code, simd(13), indices),
  and: binary<"v128", "v128">("v128", simd(0x4e)),
  or: binary<"v128", "v128">("v128", simd(0x50)),
  xor: binary<"v128", "v128">("v128", simd(0x51)),
  /** Bits of a where the mask is set, else of b. */
  bitselect: (a: V128, b: V128, mask: V128): V128 => expr("v128", a.code, b.code, mask.code, simd(0x52)),
} as const;

export const f32x4 = {
  splat: unary<"f32", "v128">("v128", simd(0x13)),
  const: (value: number): V128 => expr("v128", simd(12), ...[0, 1, 2, 3].map(() => floatBytes(value))),
  extractLane: (a: V128, lane: number): F32 => expr("f32", a.code, simd(0x1f), [lane]),
  gt: binary<"v128", "v128">("v128", simd(0x44)),
  lt: binary<"v128", "v128">("v128", simd(0x43)),
  nearest: unary<"v128", "v128">("v128", simd(0x6a)),
  neg: unary<"v128", "v128">("v128", simd(0xe1)),
  add: binary<"v128", "v128">("v128", simd(0xe4)),
  sub: binary<"v128", "v128">("v128", simd(0xe5)),
  mul: binary<"v128", "v128">("v128", simd(0xe6)),
  div: binary<"v128", "v128">("v128", simd(0xe7)),
  abs: unary<"v128", "v128">("v128", simd(0xe0)),
  min: binary<"v128", "v128">("v128", simd(0xe8)),
  max: binary<"v128", "v128">("v128", simd(0xe9)),
  /** b < a ? b : a, and a < b ? b : a: one instruction, where min and max take several for NaN and the sign of 0. */
  pmin: binary<"v128", "v128">("v128", simd(0xea)),
  pmax: binary<"v128", "v128">("v128", simd(0xeb)),
  /** Signed 32-bit integers to float32. */
  convert: unary<"v128", "v128">("v128", simd(0xfa)),
} as const;

export const i8x16 = {
  shl: shift(simd(0x6b)),
  shrS: shift(simd(0x6c)),
  /** The 16-bit integers of a, then of b, saturated. */
  narrow: binary<"v128", "v128">("v128", simd(0x65)),
} as const;

export const i16x8 = {
  /** The 32-bit integers of a, then of b, saturated. */
  narrow: binary<"v128", "v128">("v128", simd(0x85)),
  extendLowS: unary<"v128", "v128">("v128", simd(0x87)),
  extendHighS: unary<"v128", "v128">("v128", simd(0x88)),
  shl: shift(simd(0x8b)),
  shrS: shift(simd(0x8c)),
  mul: binary<"v128", "v128">("v128", simd(0x95)),
} as const;

export const i32x4 = {
  /** Four lanes, or one value for all of them. */
  const: (...lanes: readonly [number] | readonly [number, number, number, number]): V128 =>
    expr(
      "v128",
      simd(12),
      Array.from(new Uint8Array(Int32Array.from({ length: 4 }, (_, i) => lanes[i % lanes.length]).buffer)),
    ),
  splat: unary<"i32", "v128">("v128", simd(0x11)),
  add: binary<"v128", "v128">("v128", simd(0xae)),
  sub: binary<"v128", "v128">("v128", simd(0xb1)),
  eq: binary<"v128", "v128">("v128", simd(0x37)),
  ltS: binary<"v128", "v128">("v128", simd(0x39)),
  extendLowS: unary<"v128", "v128">("v128", simd(0xa7)),
  extendHighS: unary<"v128", "v128">("v128", simd(0xa8)),
  mul: binary<"v128", "v128">("v128", simd(0xb5)),
  maxS: binary<"v128", "v128">("v128", simd(0xb8)),
  /** a[2i] * b[2i] + a[2i + 1] * b[2i + 1] of 16-bit integers, exact. */
  dot: binary<"v128", "v128">("v128", simd(0xba)),
  shl: shift(simd(0xab)),
  shrS: shift(simd(0xac)),
  shrU: shift(simd(0xad)),
  /** float32 to integer, NaN to 0, out of range to the nearest. */
  truncSat: unary<"v128", "v128">("v128", simd(0xf8)),
} as const;

// ---------------------------------------------------------------------------------------------------------------------
// functions

/** A parameter or local variable. */
export class Local<T extends ValueType> {
  readonly get: Expr<T>;
  readonly #function: FunctionBuilder;
  readonly #index: number;

  constructor(owner: FunctionBuilder, type: T, index: number) {
    this.#function = owner;
    this.#index = index;
    this.get = expr(type, [0x20], uleb(index));
  }

  set(value: Expr<T>): void {
    this.#function.emit(value.code, [0x21], uleb(this.#index));
  }
}

type Params = Readonly<Record<string, ValueType>>;
type Locals<P extends Params> = { readonly [name in keyof P]: Local<P[name]> };

/** Statements of one function, in the order in which its methods are called. */
export class FunctionBuilder {
  readonly #code: number[] = [];
  readonly #locals: ValueType[] = [];
  readonly #paramCount: number;

  constructor(paramCount: number) {
    this.#paramCount = paramCount;
  }

  local<T extends ValueType>(type: T, initial?: Expr<T>): Local<T> {
    this.#locals.push(type);
    const local = new Local(this, type, this.#paramCount + this.#locals.length - 1);
    if (initial) local.set(initial);
    return local;
  }

  emit(...parts: readonly (readonly number[])[]): void {
    for (const part of parts) for (const byte of part) this.#code.push(byte);
  }

  /** pointer += bytes */
  advance(pointer: Local<"i32">, bytes: number | I32): void {
    pointer.set(i32.add(pointer.get, typeof bytes === "number" ? i32.const(bytes) : bytes));
  }

  storeV128(pointer: I32, value: V128, offset: number = 0): void {
    this.emit(pointer.code, value.code, simd(11), access(2, offset));
  }

  /** Stores vectors one after the other, `stride` bytes apart. */
  storeVectors(pointer: I32, values: readonly V128[], offset: number = 0, stride: number = 16): void {
    for (const [i, value] of values.entries()) this.storeV128(pointer, value, offset + i * stride);
  }

  /** Stores one of the four 32-bit lanes. */
  storeLane32(pointer: I32, value: V128, lane: number, offset: number = 0): void {
    this.emit(pointer.code, value.code, simd(0x5a), access(2, offset), [lane]);
  }

  store8(pointer: I32, value: I32, offset: number = 0): void {
    this.emit(pointer.code, value.code, [0x3a], access(0, offset));
  }

  storeF32(pointer: I32, value: F32, offset: number = 0): void {
    this.emit(pointer.code, value.code, [0x38], access(2, offset));
  }

  /** Runs `body` `count` times, counting the local down to 0. */
  repeat(count: Local<"i32">, body: () => void): void {
    this.if(count.get, () => {
      this.emit([0x03, 0x40]); // loop
      body();
      count.set(i32.sub(count.get, i32.const(1)));
      this.emit(count.get.code, [0x0d, 0], [0x0b]); // again while it is not 0; end
    });
  }

  if(condition: I32, then: () => void, otherwise?: () => void): void {
    this.emit(condition.code, [0x04, 0x40]);
    then();
    if (otherwise) {
      this.emit([0x05]);
      otherwise();
    }
    this.emit([0x0b]);
  }

  return(value: Expr<ValueType>): void {
    this.emit(value.code, [0x0f]);
  }

  /** Locals, code and end, with their length before them. */
  bytes(): number[] {
    const body = [...vector(this.#locals.map(type => [1, TYPE_CODES[type]])), ...this.#code, 0x0b];
    return [...uleb(body.length), ...body];
  }
}

/** A module of functions over one imported memory, `env.memory`. All functions are exported under their names. */
export class ModuleBuilder {
  readonly #functions: { readonly name: string; readonly type: readonly number[]; readonly code: readonly number[] }[] =
    [];

  func<P extends Params>(
    name: string,
    params: P,
    result: ValueType | null,
    build: (f: FunctionBuilder, params: Locals<P>) => void,
  ): void {
    const types = Object.values(params);
    const f = new FunctionBuilder(types.length);
    const locals = Object.fromEntries(
      Object.entries(params).map(([key, type], i) => [key, new Local(f, type, i)]),
    ) as Locals<P>;
    build(f, locals);
    // A function that ends without `return` needs no value after its code: validation sees "unreachable" there.
    if (result) f.emit([0x00]);
    const type = [0x60, ...vector(types.map(t => [TYPE_CODES[t]])), ...vector(result ? [[TYPE_CODES[result]]] : [])];
    this.#functions.push({ name, type, code: f.bytes() });
  }

  /** `sharedPages`: the most pages, of 64 KiB, that a shared memory may have. Without it the memory is not shared. */
  bytes(sharedPages?: number): Uint8Array<ArrayBuffer> {
    const functions = this.#functions;
    const limits = sharedPages === undefined ? [0, 0] : [3, 0, ...uleb(sharedPages)];
    return Uint8Array.from([
      ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00], // "\0asm", version 1
      ...section(1, vector(functions.map(({ type }) => type))),
      ...section(2, vector([[...text("env"), ...text("memory"), 2, ...limits]])),
      ...section(3, vector(functions.map((_, i) => uleb(i)))),
      ...section(7, vector(functions.map(({ name }, i) => [...text(name), 0, ...uleb(i)]))),
      ...section(10, vector(functions.map(({ code }) => code))),
    ]);
  }
}
