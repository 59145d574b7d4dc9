/** One request to the Hub: where the token goes, which redirects are followed, and the words for each refusal. */

import { describe, expect, onTestFinished, test, vi } from "vitest";
import { type HubTarget, hubFetch, InterruptedError, reason } from "../../../src/checkpoint/hub/fetch.ts";

const TARGET: HubTarget = { id: "org/name", revision: "v1", endpoint: "https://hub.test/mirror", token: "secret" };
const ADDRESS = "https://hub.test/mirror/org/name/resolve/x";

interface Asked {
  readonly url: string;
  readonly init: RequestInit;
}

/** Answers one request after the other, and repeats the last answer. */
function answering(...answers: readonly (() => Response)[]): Asked[] {
  const asked: Asked[] = [];
  vi.stubGlobal("fetch", async (url: URL, init: RequestInit) => {
    asked.push({ url: url.href, init });
    return answers[Math.min(asked.length, answers.length) - 1]();
  });
  onTestFinished(() => void vi.unstubAllGlobals());
  return asked;
}

const ok = (): Response => new Response("content");
const redirect =
  (location: string, status = 302) =>
  (): Response =>
    new Response(null, { status, headers: { location } });
const refusing = (status: number, code?: string) => (): Response =>
  new Response("no", { status, headers: code ? { "x-error-code": code } : {} });
const request = (target: HubTarget = TARGET): Promise<Response> =>
  hubFetch(target, ADDRESS, { Range: "bytes=1-" }, AbortSignal.timeout(9000));
const authorizations = (asked: readonly Asked[]): unknown[] =>
  asked.map(({ init }) => new Headers(init.headers).get("authorization"));

describe("a request", () => {
  test("carries the caller's headers and the token, and follows nothing by itself", async () => {
    const asked = answering(ok);
    const { signal } = new AbortController();
    expect(await (await hubFetch(TARGET, ADDRESS, { Range: "bytes=1-" }, signal)).text()).toBe("content");
    const init = { headers: { Range: "bytes=1-", Authorization: "Bearer secret" }, redirect: "manual", signal };
    expect(asked).toEqual([{ url: ADDRESS, init }]);
    await hubFetch({ ...TARGET, token: undefined }, ADDRESS, {}, signal);
    expect(asked[1].init.headers).toEqual({});
  });

  test("for a range that does not exist is answered too", async () => {
    answering(() => new Response(null, { status: 416 }));
    expect((await request()).status).toBe(416);
  });

  test("that fails throws InterruptedError, with the platform's words", async () => {
    answering(() => {
      throw new TypeError("fetch failed", { cause: new Error("ECONNRESET") });
    });
    const failed = request();
    await expect(failed).rejects.toThrow(InterruptedError);
    await expect(failed).rejects.toThrow(/^org\/name: expected an answer from https:\/\/hub\.test, got ECONNRESET$/);
  });
});

describe("redirects", () => {
  test.each([301, 302, 303, 307, 308])("%d is followed", async status => {
    const asked = answering(redirect("/elsewhere", status), ok);
    expect(await (await request()).text()).toBe("content");
    expect(asked.map(({ url }) => url)).toEqual([ADDRESS, "https://hub.test/elsewhere"]);
  });

  test("take the token to no other scheme, host or port", async () => {
    const others = [
      "http://hub.test/a",
      "https://hub.test:8443/a",
      "https://cdn.hub.test/a",
      "https://evil.test/hub.test",
    ];
    const asked = answering(...others.map(other => redirect(other)), redirect("https://hub.test/b"), ok);
    await request();
    expect(authorizations(asked)).toEqual(["Bearer secret", null, null, null, null, "Bearer secret"]);
    expect(asked.every(({ init }) => new Headers(init.headers).get("range") === "bytes=1-")).toBe(true);
  });

  test("are relative to the address that they come from", async () => {
    const asked = answering(redirect("https://cdn.test/a/b"), redirect("c"), ok);
    await request();
    expect(asked[2].url).toBe("https://cdn.test/a/c");
  });

  test("end after ten", async () => {
    const ten = Array.from({ length: 10 }, (_, i) => redirect(`/${i}`));
    expect(answering(...ten, ok)).toHaveLength(0);
    expect((await request()).status).toBe(200);
    const asked = answering(...ten, redirect("/10"), ok);
    await expect(request()).rejects.toThrow(
      /^org\/name: expected a file, got endless redirects, or one that leads nowhere$/,
    );
    expect(asked).toHaveLength(11);
  });

  test.each([
    "file:///etc/passwd",
    "data:text/plain,a",
    "ftp://hub.test/a",
    "xhttp://h/a",
    "https+x://h/a",
    "http://[",
  ])("to %s are not followed", async location => {
    const asked = answering(redirect(location), ok);
    await expect(request()).rejects.toThrow("got endless redirects, or one that leads nowhere");
    expect(asked).toHaveLength(1);
  });

  test("without an address, and statuses that only look like redirects, are refusals", async () => {
    for (const answer of [refusing(302), redirect("/a", 304), redirect("/a", 300)]) {
      const asked = answering(() =>
        answer().status === 304 ? new Response(null, { status: 304, headers: { location: "/a" } }) : answer(),
      );
      await expect(request()).rejects.toThrow(/^org\/name: expected status 200, got 30\d from https:\/\/hub\.test$/);
      expect(asked).toHaveLength(1);
    }
  });

  test("and refusals leave no body unread, which would hold its connection", async () => {
    let cancelled = 0;
    const body = (): ReadableStream => new ReadableStream({ cancel: () => void cancelled++ });
    answering(
      () => new Response(body(), { status: 302, headers: { location: "/a" } }),
      () => new Response(body(), { status: 404 }),
    );
    await expect(request()).rejects.toThrow("got no such model or revision");
    expect(cancelled).toBe(2);
  });
});

describe("a refusal", () => {
  test.each([408, 429, 500, 503, 599])("with status %d may be over soon", async status => {
    answering(refusing(status, "GatedRepo"));
    const refused = request();
    await expect(refused).rejects.toThrow(InterruptedError);
    await expect(refused).rejects.toThrow(`org/name: expected an answer from https://hub.test, got status ${status}`);
  });

  const access =
    "org/name: expected a model that HF_TOKEN may read, got no such model, a token without access, or a gated model: ";
  const terms = "accept its terms on https://hub.test/mirror/org/name";
  test.each<[number, string | undefined, string | undefined, string]>([
    [
      404,
      "RevisionNotFound",
      "t",
      'org/name: expected a branch, tag or commit of it, got "v1" (404 from https://hub.test)',
    ],
    [
      404,
      "RepoNotFound",
      "t",
      'org/name: expected a model of the Hub, got no such model or revision "v1" (404 from https://hub.test)',
    ],
    [
      403,
      "GatedRepo",
      "t",
      `org/name: expected access, got a gated model: ${terms}, and set HF_TOKEN (403 from https://hub.test)`,
    ],
    [401, undefined, "t", `${access}${terms} (401 from https://hub.test)`],
    [403, undefined, "t", `${access}${terms} (403 from https://hub.test)`],
    [
      401,
      undefined,
      undefined,
      "org/name: expected a model of the Hub that everyone may read, got no such model, or one that needs HF_TOKEN, private or gated (401 from https://hub.test)",
    ],
    [400, "GatedRepo", "t", "org/name: expected status 200, got 400 from https://hub.test"],
    [418, undefined, "t", "org/name: expected status 200, got 418 from https://hub.test"],
    [499, undefined, "t", "org/name: expected status 200, got 499 from https://hub.test"],
  ])("of status %d, code %s, with the token %s", async (status, code, token, message) => {
    answering(refusing(status, code));
    const error = await request({ ...TARGET, token }).catch((thrown: Error) => thrown);
    expect(error).not.toBeInstanceOf(InterruptedError);
    expect((error as Error).message).toBe(message);
  });

  test.each([
    [404, "RevisionNotFound"],
    [401, undefined],
    [403, "GatedRepo"],
    [404, undefined],
  ])("from another server says nothing about the model: %d %s", async (status, code) => {
    answering(redirect("https://cdn.test/a"), refusing(status, code));
    await expect(request()).rejects.toThrow(
      new Error(`org/name: expected status 200, got ${status} from https://cdn.test`),
    );
  });
});

test("the reason for a failed connection is the innermost one that says something", () => {
  const failed = (cause?: unknown): string => reason(new TypeError("fetch failed", { cause }));
  expect(failed()).toBe("fetch failed");
  expect(failed({ code: "ECONNREFUSED", message: "" })).toBe("ECONNREFUSED");
  expect(failed({ code: "ECONNREFUSED", message: "refused" })).toBe("refused");
  expect(failed({ message: "several", errors: [new Error("first"), new Error("second")] })).toBe("first");
  expect(failed({ message: "several", errors: [] })).toBe("several");
  expect(failed({ message: "several", errors: [new Error("")] })).toBe("several");
});
