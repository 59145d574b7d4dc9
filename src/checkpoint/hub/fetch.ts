/**
 * One request to the Hub. The token goes to the Hub's own address and to no other, redirects are followed by hand, and
 * refusals become words.
 *
 * `fetch` could follow redirects itself, and would drop the token on the way to another origin. We do it here so that
 * this does not depend on the runtime's version. The requests of `@huggingface/hub` go through here too, so it cannot
 * be led elsewhere with the token.
 */

/** The model that a request is about, and the server that is asked. */
export interface HubTarget {
  readonly id: string;
  readonly revision: string;
  readonly endpoint: string;
  readonly token: string | undefined;
}

/** A connection or a server failed for now, and asking again may help. Every other error is final. */
export class InterruptedError extends Error {}

const MAX_REDIRECTS = 10;
const REDIRECTS: readonly number[] = [301, 302, 303, 307, 308];

/**
 * Asks, and returns an answer of status 2xx or 416 (the range does not exist). Throws InterruptedError where the
 * connection or the server failed, and Error where the server refuses.
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
  throw new Error(`${target.id}: expected a file, got endless redirects, or one that leads nowhere`);
}

/** What the platform says about a failed connection. It hides this in the cause, or in the cause of the cause. */
export function reason(error: unknown): string {
  const { cause, message } = error as Error & {
    cause?: { code?: string; message?: string; errors?: readonly Error[] };
  };
  return cause?.errors?.[0]?.message || cause?.message || cause?.code || message;
}

/**
 * The error for a status that is not a success: one line that says what to do. When a caller is not allowed to know
 * whether a model exists, the Hub answers 401 and not 404. Its header x-error-code tells more where it is set.
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
    if (token === undefined) {
      const other = "no such model, or one that needs HF_TOKEN, private or gated";
      return new Error(`${id}: expected a model of the Hub that everyone may read, got ${other} (${got})`);
    }
    const other = `no such model, a token without access, or ${gated}`;
    return new Error(`${id}: expected a model that HF_TOKEN may read, got ${other} (${got})`);
  }
  if (isHub && status === 404)
    return new Error(`${id}: expected a model of the Hub, got no such model or revision "${revision}" (${got})`);
  return new Error(`${id}: expected status 200, got ${got}`);
}
