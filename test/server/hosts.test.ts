/** Names in the Host header, against DNS rebinding, where a web page's own name leads to this machine. */

import { describe, expect, test } from "vitest";
import { hostsToAllow } from "../../src/cli/serving/listening.ts";
import { checkHost, isHostName } from "../../src/server/hosts.ts";

describe("without given names", () => {
  test.each([
    "localhost",
    "LocalHost:8000",
    "127.0.0.1",
    "127.0.0.1:1",
    "127.255.3.4:8000",
    "[::1]",
    "[::1]:8000",
    "localhost:",
  ])("%s is the loopback", host => expect(() => checkHost(host, [])).not.toThrow());

  test.each([
    ...[
      "evil.example",
      "evil.example:8000",
      "localhost.evil.example",
      "127.0.0.1.evil.example",
      "evil-localhost",
      "evil.example:localhost",
    ],
    ...[
      "127.0.0.1@evil.example",
      "10.0.0.1",
      "0.0.0.0",
      "[::2]",
      "[::1].evil.example",
      "::1",
      "128.0.0.1",
      "1127.0.0.1",
      "",
      ":8000",
    ],
  ])("%j is not", host => expect(() => checkHost(host, [])).toThrow("host: expected localhost"));

  test("a missing name is not, either", () => {
    expect(() => checkHost(undefined, [])).toThrow("got nothing");
  });
});

test("names that are given are accepted with any port and in any case, and no others", () => {
  const names = ["Guard.example.org", "[fd00::1]"];
  for (const host of ["guard.example.org", "GUARD.EXAMPLE.ORG:8443", "[FD00::1]:80", "localhost"])
    checkHost(host, names);
  for (const host of ["guard.example.com", "x.guard.example.org", "guardxexample.org"])
    expect(() => checkHost(host, names)).toThrow();
});

test("the refusal is a 403 that says what would be accepted, and ends the connection", () => {
  let error: unknown;
  try {
    checkHost("evil.example", []);
  } catch (thrown) {
    error = thrown;
  }
  expect(error).toMatchObject({
    status: 403,
    code: "host_not_allowed",
    headers: { connection: "close" },
    message: 'host: expected localhost, 127.0.0.1, [::1] or a name that --allow-host gives, got "evil.example"',
  });
});

test("a server with a key, or beyond the loopback, takes any name unless some are given", () => {
  for (const host of ["127.0.0.1", "localhost", "::1"]) expect(hostsToAllow(host, false)).toEqual([]);
  expect([hostsToAllow("127.0.0.1", true), hostsToAllow("0.0.0.0", false)]).toEqual([undefined, undefined]);
  expect([hostsToAllow("127.0.0.1", true, ["a"]), hostsToAllow("0.0.0.0", false, ["a"])]).toEqual([["a"], ["a"]]);
});

test.each(["guard.example.org", "guard_1", "10.0.0.1", "[::1]"])("%s can be a name", name =>
  expect(isHostName(name)).toBe(true),
);
test.each(["https://guard.example.org", "guard.example.org:80", "a b", "", "*", "::1"])("%j cannot", name =>
  expect(isHostName(name)).toBe(false),
);
