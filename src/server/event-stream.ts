/**
 * Server-sent events from a job that sends them as it works.
 *
 * The job never waits for a reader, since other requests wait for the engine. Unread events are kept up to a bound;
 * beyond it, the reader counts as gone. The response is given at the first event, so that a job that fails earlier can
 * still answer with a status.
 */

/** A whole answer with all its log probabilities is much smaller. */
const MAX_UNREAD_BYTES = 4 * 2 ** 20;

export interface EventStream {
  readonly response: Promise<Response>;
  /** Resolves when the stream has ended, for whatever reason. */
  readonly ended: Promise<void>;
}

/**
 * `run` sends events and resolves when all are sent. `errorOf` turns what it throws after the first event into an
 * event. `abort` is called when nobody reads any more.
 */
export function eventStream(
  run: (send: (event: unknown) => void) => Promise<void>,
  errorOf: (error: unknown) => unknown,
  abort: (reason: Error) => void,
): EventStream {
  const encoder = new TextEncoder();
  let controller!: ReadableStreamDefaultController<Uint8Array>;
  let isOpen = true;
  const body = new ReadableStream<Uint8Array>(
    {
      start: given => {
        controller = given;
      },
      cancel: () => {
        isOpen = false;
        abort(new Error("the client went away"));
      },
    },
    new ByteLengthQueuingStrategy({ highWaterMark: MAX_UNREAD_BYTES }),
  );
  const write = (data: string): void => {
    if (!isOpen) return;
    if ((controller.desiredSize ?? 0) <= 0) {
      isOpen = false;
      const reason = new Error("the client reads too slowly");
      controller.error(reason); // breaks the connection; closing it would look like the end of the answer
      return abort(reason);
    }
    controller.enqueue(encoder.encode(`data: ${data}\n\n`));
  };

  let respond!: (response: Response) => void;
  let refuse!: (error: unknown) => void;
  const response = new Promise<Response>((resolve, reject) => {
    respond = resolve;
    refuse = reject;
  });
  let hasBegun = false;
  const send = (event: unknown): void => {
    write(JSON.stringify(event));
    if (hasBegun) return;
    hasBegun = true;
    const headers = {
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-cache",
      "x-accel-buffering": "no",
    };
    respond(new Response(body, { headers }));
  };
  const work = async (): Promise<void> => {
    try {
      await run(send);
      write("[DONE]");
    } catch (error) {
      if (!hasBegun) return refuse(error);
      write(JSON.stringify(errorOf(error)));
    }
    if (isOpen) controller.close();
    isOpen = false;
  };
  return { response, ended: work() };
}
