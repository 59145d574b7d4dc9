/**
 * Reads server-sent events from a server that may send anything.
 *
 * In: bytes, cut anywhere. Out: the data of each event. Bytes that are not UTF-8 and events longer than the bound are
 * an ApiError. Lines that are not fields of an event are skipped, as in the standard. An event that is cut off at the
 * end is given as it is: its JSON will not parse.
 */

import { upstreamFault } from "./upstream.ts";

/** An event with all log probabilities has a few kilobytes. */
const MAX_EVENT_CHARS = 2 ** 20;

export async function* readEvents(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<string, void, undefined> {
  let data: string | undefined;
  for await (const line of readLines(chunks)) {
    if (line === "") {
      if (data) yield data; // the standard drops an event without data
      data = undefined;
      continue;
    }
    const [name] = line.split(":", 1);
    if (name !== "data") continue; // a comment, the event's name, its id
    const text = line.slice(name.length + 1);
    const value = text.startsWith(" ") ? text.slice(1) : text;
    data = data === undefined ? value : `${data}\n${value}`;
    if (data.length > MAX_EVENT_CHARS) throw tooLong();
  }
  if (data) yield data;
}

/** Reads lines, which end with CR LF, LF or CR. */
async function* readLines(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<string, void, undefined> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  const decode = (bytes?: Uint8Array): string => {
    try {
      return bytes === undefined ? decoder.decode() : decoder.decode(bytes, { stream: true });
    } catch {
      throw upstreamFault("UTF-8 text", "bytes that are not");
    }
  };
  let rest = "";
  for await (const bytes of chunks) {
    const searched = Math.max(0, rest.length - 1); // a CR at the end may be waiting for its LF
    rest += decode(bytes);
    const ends = /\r\n|\n|\r(?!$)/g;
    ends.lastIndex = searched;
    let start = 0;
    for (let end = ends.exec(rest); end !== null; end = ends.exec(rest)) {
      yield rest.slice(start, end.index);
      start = ends.lastIndex;
    }
    rest = rest.slice(start);
    if (rest.length > MAX_EVENT_CHARS) throw tooLong();
  }
  yield (rest + decode()).replace("\r", ""); // a CR is left only at the end
}

function tooLong(): Error {
  return upstreamFault(`an event of at most ${MAX_EVENT_CHARS} characters`, "a longer one");
}
