/**
 * Server-sent events for a job that sends as it works.
 *
 * The job goes at the engine's pace and never waits for a reader, since others wait for the engine: what a reader has
 * not taken is kept, up to a bound, beyond which the reader counts as gone. The response is given when the first event
 * is there, so that a job that fails before it can still answer with a status.
 */

/** A whole answer with all its log probabilities is a fraction of this. */
const MAX_UNREAD_BYTES = 4 * 2 ** 20;

export interface EventStream {
  readonly response: Promise<Response>;
  /** Resolves when the stream has ended, whichever way. */
  readonly ended: Promise<void>;
}

/**
 * `run` sends events and resolves when all are sent; `errorOf` gives the event for what it throws after the first;
 * `abort` is called when nobody reads any more.
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
      controller.error(reason); // the connection breaks: a close would look like the end of the answer
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
