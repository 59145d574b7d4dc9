/** Failures in the form that OpenAI's clients know: a status, and a body `{error: {message, type, param, code}}`. */

/** A failure whose message the client gets to see. */
export class ApiError extends Error {
  readonly status: number;
  /** The field of the request that is wrong. */
  readonly param: string | null;
  readonly code: string | null;
  readonly headers: Readonly<Record<string, string>>;

  constructor(
    status: number,
    message: string,
    details: {
      readonly param?: string;
      readonly code?: string;
      readonly headers?: Readonly<Record<string, string>>;
    } = {},
  ) {
    super(message);
    this.status = status;
    this.param = details.param ?? null;
    this.code = details.code ?? null;
    this.headers = details.headers ?? {};
  }

  /** The object under `error`. */
  get body(): { message: string; type: string; param: string | null; code: string | null } {
    const type =
      this.status === 401 ? "authentication_error" : this.status < 500 ? "invalid_request_error" : "server_error";
    return { message: this.message, type, param: this.param, code: this.code };
  }
}

/** 400: a field has the wrong type or value. */
export function invalid(param: string, expected: string, got: string): ApiError {
  return new ApiError(400, `${param}: expected ${expected}, got ${got}`, { param, code: "invalid_value" });
}

/** 422: a field of OpenAI's that this server knows but cannot honour. It is refused by name rather than ignored. */
export function unsupported(param: string, reason: string): ApiError {
  return new ApiError(422, `${param}: not supported (${reason})`, { param, code: "unsupported_parameter" });
}

/** 503, with how long to wait. OpenAI's clients try again by themselves after that time. */
export function unavailable(
  message: string,
  retryAfterSeconds: number,
  code: string,
  headers: Readonly<Record<string, string>> = {},
): ApiError {
  return new ApiError(503, message, { code, headers: { ...headers, "retry-after": String(retryAfterSeconds) } });
}

/** What to tell the client about a failure. The message of an unexpected one is for the log, not for the client. */
export function toApiError(error: unknown): ApiError {
  return error instanceof ApiError
    ? error
    : new ApiError(500, "the server failed to answer; its log says how", { code: "internal_error" });
}

export function failure(error: ApiError): Response {
  return Response.json({ error: error.body }, { status: error.status, headers: error.headers });
}

/** Describes a value for a message, briefly: a text by no more than its first characters. */
export function describe(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "an array";
  if (typeof value === "object") return "an object";
  if (typeof value === "string")
    return value.length <= 40 ? JSON.stringify(value) : `${JSON.stringify(value.slice(0, 40))}...`;
  return value === undefined ? "nothing" : String(value);
}
