/** A prompt, a conversation or an answer is longer than the context. A shorter one can be run. */
export class ContextLengthError extends RangeError {
  override readonly name: string = "ContextLengthError";
}
