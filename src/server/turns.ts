/** Turns of the event loop: it is there that bytes arrive and that clients are heard to leave. */

import { nextTurn } from "../model/session.ts";

/**
 * Turns of Node's event loop until the signal of a client that has left is aborted: one ends, in the next the end of
 * the connection is read, in the third it is closed. Measured: 2 or 3, however the client leaves, also where its
 * request and its leaving arrive together. One more to be sure.
 */
const LEAVING_TURNS = 4;

/** Resolves when whatever has happened on connections by now has been heard. Some microseconds on Node. */
export async function hearConnections(): Promise<void> {
  if (typeof setImmediate !== "function") return nextTurn();
  for (let i = 0; i < LEAVING_TURNS; i++) await new Promise<void>(resolve => setImmediate(resolve));
}
