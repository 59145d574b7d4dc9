/**
 * No guard can take these messages, though their types are right: there is none, a role is out of place, or the texts
 * leave no private-use character to shadow them with (chat-template.ts).
 */
export class ConversationError extends RangeError {
  override readonly name: string = "ConversationError";
}
