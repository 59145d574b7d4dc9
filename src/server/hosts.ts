/**
 * The host names that a server answers to, a defence against DNS rebinding. A web page can point its own name at this
 * machine's loopback address, so that the browser takes the server for the same origin. The `Host` header still has the
 * page's name.
 */

import { ApiError, describe } from "./api-error.ts";

export function isLoopback(address: string): boolean {
  return address === "localhost" || address === "::1" || /^127(\.\d{1,3}){3}$/.test(address);
}

/** Whether a text can be a `Host` header without its port. */
export function isHostName(name: string): boolean {
  return /^([a-z0-9._-]+|\[[0-9a-f:.]+\])$/i.test(name);
}

/** Throws 403 unless the header `host` names the loopback or one of `names`, with any port. */
export function checkHost(host: string | undefined, names: readonly string[]): void {
  const name = /^(.*?)(:\d*)?$/.exec(host?.toLowerCase() ?? "")?.[1] ?? "";
  if (isLoopback(name.replace(/^\[(.*)\]$/, "$1")) || names.some(allowed => allowed.toLowerCase() === name)) return;
  throw new ApiError(
    403,
    `host: expected localhost, 127.0.0.1, [::1] or a name that --allow-host gives, got ${describe(host)}`,
    {
      code: "host_not_allowed",
      headers: { connection: "close" },
    },
  );
}
