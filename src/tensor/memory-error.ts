/** The engine has no memory for what was asked. The input is not at fault: it may fit at another time. */
export class MemoryError extends RangeError {
  override readonly name: string = "MemoryError";
}
