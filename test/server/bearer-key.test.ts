/** The key: every bit of its digest counts. */

import { afterEach, expect, test, vi } from "vitest";
import { BearerKey } from "../../src/server/bearer-key.ts";

afterEach(() => vi.restoreAllMocks());

const bearer = (key: string): Headers => new Headers({ authorization: `Bearer ${key}` });

test("a key whose digest differs in any one bit is another key", async () => {
  const key = new BearerKey("secret");
  await key.check(bearer("secret"));
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode("secret")));
  expect(digest.length).toBe(32);
  const spy = vi.spyOn(crypto.subtle, "digest");
  for (let bit = 0; bit < 256; bit++) {
    const near = digest.slice();
    near[bit >> 3] ^= 1 << (bit & 7);
    spy.mockResolvedValueOnce(near.buffer);
    await expect(key.check(bearer("guess")), `bit ${bit}`).rejects.toMatchObject({ status: 401 });
  }
  expect(spy).toHaveBeenCalledTimes(256);
  spy.mockResolvedValueOnce(digest.buffer);
  await key.check(bearer("guess")); // it is the digest that is compared
});

test("the right digest does not help if no key was given", async () => {
  const key = new BearerKey("secret");
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode("secret"));
  vi.spyOn(crypto.subtle, "digest").mockResolvedValue(digest);
  await expect(key.check(new Headers())).rejects.toThrow(
    "authorization: expected Bearer and the server's key, got none",
  );
});
