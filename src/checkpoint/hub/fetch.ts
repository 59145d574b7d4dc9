/**
 * One request to the Hub: the token to its own address and to no other, redirects followed by hand, refusals in words.
 *
 * `fetch` would follow redirects by itself, and drop the token on the way to another origin. It is done here so that
 * this does not rest on what a runtime's version does, and so that no caller of the package's can be led elsewhere with
 * it: its requests go through this too.
 */

/** Of whom is asked, and for what. */
export interface HubTarget {
  readonly id: string;
  readonly revision: string;
  readonly endpoint: string;
  readonly token: string | undefined;
}

/** A connection or a server that failed for now: asking again may help. Everything else that is thrown is final. */
export class InterruptedError extends Error {}

const MAX_REDIRECTS = 10;
const REDIRECTS: readonly number[] = [301, 302, 303, 307, 308];

/**
 * An answer of status 2xx or 416 (a range that is not there). Throws InterruptedError where the connection or the
 * server failed, Error where the answer is no.
 */
export async function hubFetch(
  target: HubTarget,
  address: string,
  headers: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<Response> {
  const { origin } = new URL(target.endpoint);
  let url = new URL(address);
  for (let hops = 0; hops <= MAX_REDIRECTS; hops++) {
    const authorization =
      target.token !== undefined && url.origin === origin ? { Authorization: `Bearer ${target.token}` } : {};
    const response = await fetch(url, { headers: { ...headers, ...authorization }, redirect: "manual", signal }).catch(
      error => {
        throw new InterruptedError(`${target.id}: expected an answer from ${url.origin}, got ${reason(error)}`);
      },
    );
    const location = response.headers.get("location");
    if (!REDIRECTS.includes(response.status) || location === null) {
      if (response.ok || response.status === 416) return response;
      await response.body?.cancel();
      throw refusal(target, url, response);
    }
    await response.body?.cancel();
    if (!URL.canParse(location, url.href)) break;
    url = new URL(location, url);
    if (!/^https?:$/.test(url.protocol)) break;
  }
  throw new Error(`${target.id}: expected a file, got redirects without end or to nowhere`);
}

/** What the platform says about a failed connection, which it hides in the cause of the cause. */
export function reason(error: unknown): string {
  const { cause, message } = error as Error & {
    cause?: { code?: string; message?: string; errors?: readonly Error[] };
  };
  return cause?.errors?.[0]?.message || cause?.message || cause?.code || message;
}

/**
 * A status that is not what was asked for, as one line that says what to do. The Hub answers 401, not 404, for a model
 * that does not exist to who may not know that; its header x-error-code tells more where it is there.
 */
function refusal({ id, revision, endpoint, token }: HubTarget, { origin }: URL, { status, headers }: Response): Error {
  const code = headers.get("x-error-code");
  const isHub = origin === new URL(endpoint).origin;
  const got = `${status} from ${origin}`;
  if (status === 408 || status === 429 || status >= 500) {
    return new InterruptedError(`${id}: expected an answer from ${origin}, got status ${status}`);
  }
  if (isHub && code === "RevisionNotFound")
    return new Error(`${id}: expected a branch, tag or commit of it, got "${revision}" (${got})`);
  if (isHub && (status === 401 || status === 403)) {
    const gated = `a gated model: accept its terms on ${endpoint}/${id}`;
    if (code === "GatedRepo") return new Error(`${id}: expected access, got ${gated}, and set HF_TOKEN (${got})`);
    return new Error(
      token === undefined
        ? `${id}: expected a model of the Hub that all may read, got no such model, or one that needs HF_TOKEN, private or gated (${got})`
        : `${id}: expected a model that HF_TOKEN may read, got no such model, a token without access, or ${gated} (${got})`,
    );
  }
  if (isHub && status === 404)
    return new Error(`${id}: expected a model of the Hub, got no such model or revision "${revision}" (${got})`);
  return new Error(`${id}: expected status 200, got ${got}`);
}
