/**
 * The files of a checkpoint, wherever they are: a folder, a URL, the Hub, or Blobs that a user picked.
 *
 * In: one of these. Out: `CheckpointFiles`, opened once and passed on: the tokenizer reads its texts, the model its
 * bytes. Only web-standard types cross this boundary. Blobs and URLs are here, folders in folder.node.ts, the Hub in
 * hub/files.node.ts; open.ts chooses.
 */

import { type ByteSource, bytesFromBlob } from "./bytes.ts";
import { decodeText, maxTextBytes, readSourceText } from "./text-file.ts";

export interface CheckpointFiles {
  /** Stands in messages: the folder, the URL, or the name that the caller gave. */
  readonly name: string;
  /** The bytes of a file, or undefined where there is no file of that name. */
  open(file: string): Promise<ByteSource | undefined>;
  /** The text of a file, or undefined where there is no file of that name. */
  readText(file: string): Promise<string | undefined>;
}

/** What reading weights needs. */
export type NamedSources = Pick<CheckpointFiles, "name" | "open">;

/** What reading a tokenizer needs. */
export type TextFiles = Pick<CheckpointFiles, "name" | "readText">;

/**
 * The texts of a checkpoint that a guard reads, besides the index of shards. They are downloaded and copied, and a
 * guard's hash takes them in this order.
 */
export const TEXT_FILES: readonly string[] = [
  "config.json",
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "chat_template.jinja",
];

/** The last part of the files' name, which verdicts and a guard's messages show. */
export function shortName({ name }: Pick<CheckpointFiles, "name">): string {
  return name.replace(/^.*[/\\]/, "") || name;
}

/** Adds `readText` to sources of bytes. */
export function filesFromSources({ name, open }: NamedSources): CheckpointFiles {
  return {
    name,
    open,
    readText: async file => {
      const source = await open(file);
      return source && readSourceText(source, maxTextBytes(file));
    },
  };
}

/** Files by name, as a browser's file picker or drag and drop gives them. Throws TypeError for anything but a Map. */
export function filesFromBlobs(blobs: ReadonlyMap<string, Blob>, name: string = "checkpoint"): CheckpointFiles {
  if (!(blobs instanceof Map))
    throw new TypeError(`checkpoint: expected a Map of file names to Blobs, got ${typeof blobs}`);
  return filesFromSources({
    name,
    open: async file => {
      const blob = blobs.get(file);
      return blob && bytesFromBlob(blob, `${name}/${file}`);
    },
  });
}

/** Files under a URL. Each is fetched whole when it is asked for. Status 404 or a page of HTML means "no such file". */
export function filesFromUrl(base: URL): CheckpointFiles {
  const folder = new URL(base);
  if (!folder.pathname.endsWith("/")) folder.pathname += "/";
  folder.hash = "";
  const { search } = folder;
  folder.search = "";
  const fetchFile = async (file: string): Promise<Response | undefined> => {
    const url = new URL(file, folder);
    url.search = search; // a key or a version in it applies to every file
    const response = await fetch(url).catch(error => {
      throw new Error(`${folder.href}${file}: expected an answer, got ${error.cause?.message ?? error.message}`);
    });
    if (response.status === 404) return undefined;
    if (!response.ok) throw new Error(`${folder.href}${file}: expected status 200, got ${response.status}`);
    // Servers of single-page applications answer 200 with their page where there is no such file.
    return response.headers.get("content-type")?.startsWith("text/html") ? undefined : response;
  };
  return {
    name: folder.href.replace(/\/$/, ""),
    open: async file => {
      const response = await fetchFile(file);
      return response && bytesFromBlob(await response.blob(), folder.href + file);
    },
    readText: async file => {
      const response = await fetchFile(file);
      return (
        response && decodeText(await readAtMost(response, maxTextBytes(file), folder.href + file), folder.href + file)
      );
    },
  };
}

/** A body of at most `maxBytes`. Throws RangeError for a longer one, and stops reading: the body may be endless. */
async function readAtMost({ body }: Response, maxBytes: number, name: string): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let length = 0;
  const reader = body?.getReader();
  while (reader && length <= maxBytes) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    length += value.length;
  }
  await reader?.cancel();
  if (length > maxBytes) throw new RangeError(`${name}: expected at most ${maxBytes} bytes, got more`);
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** Reads a JSON file; undefined where there is none. Throws TypeError for a text that is not JSON. */
export async function readJson(files: TextFiles, file: string): Promise<unknown> {
  const text = await files.readText(file);
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new TypeError(`${files.name}/${file}: expected JSON, got ${(error as Error).message}`);
  }
}
