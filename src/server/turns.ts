/** Turns of the event loop, in which bytes arrive and a server hears that clients have left. */

import { nextTurn } from "../model/session.ts";

/**
 * How many turns Node's event loop needs until a client's leaving aborts its signal: the current turn ends, the next
 * reads the end of the connection, the third closes it. Measured: 2 or 3, however the client leaves, even if its
 * request and the end of the connection arrive together. One more to be sure.
 */
const LEAVING_TURNS = 4;

/** Resolves when the event loop has heard everything that has happened on connections so far: microseconds on Node. */
export async function hearConnections(): Promise<void> {
  if (typeof setImmediate !== "function") return nextTurn();
  for (let i = 0; i < LEAVING_TURNS; i++) await new Promise<void>(resolve => setImmediate(resolve));
}
