/** The engine has no room for what was asked. The input is not at fault: the same call may succeed later. */
export class MemoryError extends RangeError {
  override readonly name: string = "MemoryError";
}
