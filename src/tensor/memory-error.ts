/** The engine has no room for what was asked: no fault of the input's, which may do at another time. */
export class MemoryError extends RangeError {}
