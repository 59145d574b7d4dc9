/**
 * The key that requests must carry. Whole SHA-256 digests are compared, so that the time a comparison takes says
 * nothing about the key.
 */

import { ApiError } from "./api-error.ts";

export class BearerKey {
  readonly #digest: Promise<Uint8Array>;

  constructor(key: string) {
    // Clients encode a header's other characters differently and trim blanks. The message does not quote the key.
    if (!/^[!-~]+$/.test(key)) {
      throw new RangeError(
        `apiKey: expected a key of printable ASCII without blanks, got ${key === "" ? "an empty text" : "another text"}`,
      );
    }
    this.#digest = digest(key);
  }

  /** Throws 401 unless the headers have `Authorization: Bearer KEY`. */
  async check(headers: Headers): Promise<void> {
    const given = /^Bearer +(.*)$/i.exec(headers.get("authorization") ?? "")?.[1];
    const [expected, got] = await Promise.all([this.#digest, digest(given ?? "")]);
    let difference = given === undefined ? 1 : 0;
    for (let i = 0; i < expected.length; i++) difference |= expected[i] ^ got[i];
    if (difference === 0) return;
    throw new ApiError(
      401,
      `authorization: expected Bearer and the server's key, got ${given === undefined ? "none" : "another key"}`,
      {
        code: "invalid_api_key",
        headers: { "www-authenticate": "Bearer" },
      },
    );
  }
}

async function digest(text: string): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text)));
}
