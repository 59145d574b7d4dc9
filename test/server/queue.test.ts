/** Which job has the engine: order, turns, bounds, and jobs that leave the queue. */

import { describe, expect, test } from "vitest";
import { seededRandom } from "../../src/model/sampling.ts";
import { Queue, QueueFullError, type Turn } from "../../src/server/queue.ts";

const never = new AbortController().signal;

/** Lets the event loop turn until something is so. A job begins after some turns, in which leaving clients are heard. */
async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await new Promise(resolve => setTimeout(resolve));
}

/** A log of what ran, and jobs of so many chunks that write into it. */
function story(queue: Queue): {
  readonly log: string[];
  readonly start: (name: string, size: number, chunks: number, signal?: AbortSignal) => Promise<string>;
} {
  const log: string[] = [];
  return {
    log,
    start: (name, size, chunks, signal = never) =>
      queue.run({
        size,
        signal,
        run: async turn => {
          for (let chunk = 0; chunk < chunks; chunk++) {
            if (chunk > 0) await turn();
            log.push(name);
          }
          return name;
        },
      }),
  };
}

/** A job whose chunks end when the test says so. */
function stepped(
  queue: Queue,
  size: number,
  signal: AbortSignal = never,
): { step: () => Promise<void>; end: () => void; done: Promise<string> } {
  let next: (action: "step" | "end") => void = () => {};
  let action = new Promise<"step" | "end">(resolve => {
    next = resolve;
  });
  let turned: () => void = () => {};
  const run = async (turn: Turn): Promise<string> => {
    while ((await action) === "step") {
      action = new Promise(resolve => {
        next = resolve;
      });
      await turn();
      turned();
    }
    return "done";
  };
  return {
    done: queue.run({ size, signal, run }),
    step: () =>
      new Promise(resolve => {
        turned = resolve;
        next("step");
      }),
    end: () => next("end"),
  };
}

test("jobs of similar size run one after the other, the oldest first, each to its end", async () => {
  const { log, start } = story(new Queue(10));
  const results = await Promise.all([start("a", 100, 2), start("b", 30, 2), start("c", 100, 2)]);
  expect(results).toEqual(["a", "b", "c"]);
  expect(log).toEqual(["a", "a", "b", "b", "c", "c"]);
});

test("a short job goes before a long one at the end of its chunk, and the long one gets a chunk between two of them", async () => {
  const { log, start } = story(new Queue(10));
  const jobs = [start("long", 400, 4), start("s1", 100, 2), start("s2", 100, 1), start("s3", 101, 1)];
  await Promise.all(jobs);
  // s3 is more than a quarter and waits for its turn.
  expect(log).toEqual(["long", "s1", "s1", "long", "s2", "long", "long", "s3"]);
});

test("a stream of short jobs cannot keep a long one from ending", async () => {
  const queue = new Queue(1000);
  const { log, start } = story(queue);
  const short = Array.from({ length: 200 }, (_, i) => start(`s${i}`, 1, 1));
  const long = start("long", 100, 20);
  const more = Array.from({ length: 200 }, (_, i) => start(`m${i}`, 1, 1));
  await Promise.all([...short, long, ...more]);
  const first = log.indexOf("long");
  expect(first).toBe(200);
  expect(log.lastIndexOf("long")).toBe(first + 2 * 19); // every other chunk is its own
});

test("what has begun is a stack of ever smaller jobs, however many wait", async () => {
  const queue = new Queue(5000);
  const random = seededRandom(7);
  const sizes = Array.from({ length: 2000 }, () => Math.ceil(2 ** (random() * 15)));
  const running: number[] = [];
  let worst = 0;
  const ended = await Promise.all(
    sizes.map(size =>
      queue.run({
        size,
        signal: never,
        run: async turn => {
          running.push(size);
          for (let chunk = 0; chunk < Math.min(20, size / 100); chunk++) await turn();
          const sum = running.reduce((a, b) => a + b);
          expect(sum).toBeLessThan((4 / 3) * Math.max(...running));
          worst = Math.max(worst, running.length);
          running.splice(running.indexOf(size), 1);
          return size;
        },
      }),
    ),
  );
  expect(ended).toEqual(sizes);
  expect(worst).toBeGreaterThan(2);
  expect(worst).toBeLessThanOrEqual(8); // log4(2^15) + 1
  expect([queue.waiting, queue.begun]).toEqual([0, 0]);
});

describe("the bound", () => {
  test("a job too many is refused at once, and there is room again when one has begun", async () => {
    const queue = new Queue(2);
    const running = stepped(queue, 1);
    const { start } = story(queue);
    const waiting = [start("a", 1, 1), start("b", 1, 1)];
    await expect(start("c", 1, 1)).rejects.toThrow(QueueFullError);
    running.end();
    await running.done;
    await until(() => queue.waiting < 2);
    await Promise.all([...waiting, start("d", 1, 1)]);
  });

  test("a queue of no length is refused", () => {
    expect(() => new Queue(0)).toThrow("maxQueue: expected an integer of at least 1, got 0");
  });
});

describe("leaving", () => {
  test("a waiting job that is aborted frees its place and never runs", async () => {
    const queue = new Queue(1);
    const running = stepped(queue, 1);
    await until(() => queue.begun === 1);
    const controller = new AbortController();
    const { log, start } = story(queue);
    const left = start("left", 1, 1, controller.signal);
    expect(queue.isFull).toBe(true);
    controller.abort(new Error("gone"));
    await expect(left).rejects.toThrow("gone");
    expect(queue.isFull).toBe(false);
    const other = start("other", 1, 1);
    running.end();
    await other;
    expect(log).toEqual(["other"]);
  });

  test("a job that was aborted before is refused", async () => {
    await expect(story(new Queue(1)).start("a", 1, 1, AbortSignal.abort(new Error("gone")))).rejects.toThrow("gone");
  });

  test("a job whose client's leaving is heard turns of the event loop later never runs, first or before a longer one", async () => {
    const queue = new Queue(5);
    const { log, start } = story(queue);
    /** Leaves as a client does whose request and whose end of the connection arrive together. */
    const leaving = (size: number): Promise<string> => {
      const controller = new AbortController();
      setImmediate(() => setImmediate(() => setImmediate(() => controller.abort(new Error("gone")))));
      return start("left", size, 1, controller.signal);
    };
    await expect(leaving(1)).rejects.toThrow("gone");
    const long = stepped(queue, 100);
    await until(() => queue.begun > 0);
    const left = expect(leaving(1)).rejects.toThrow("gone");
    const stays = start("stays", 1, 1);
    await long.step(); // in which one is asked
    await left;
    await long.step();
    expect([await stays, log]).toEqual(["stays", ["stays"]]);
    const next = expect(leaving(100)).rejects.toThrow("gone");
    long.end();
    await next;
    expect([await long.done, log, queue.waiting, queue.begun]).toEqual(["done", ["stays"], 0, 0]);
  });

  test("a job that leaves at the end of a chunk starts no other inside its turn", async () => {
    const queue = new Queue(5);
    const controller = new AbortController();
    const long = stepped(queue, 100, controller.signal);
    await until(() => queue.begun > 0);
    let begun = 0;
    const short = queue.run({
      size: 1,
      signal: never,
      run: async () => {
        begun = queue.begun;
      },
    });
    setImmediate(() => controller.abort(new Error("gone")));
    void long.step();
    await expect(long.done).rejects.toThrow("gone");
    await short;
    expect(begun).toBe(1);
  });

  test("a job that is aborted while another goes before it ends at once, and the others go on", async () => {
    const queue = new Queue(5);
    const controller = new AbortController();
    const long = stepped(queue, 100, controller.signal);
    await until(() => queue.begun === 1);
    const short = stepped(queue, 1);
    const next = story(queue).start("next", 100, 1);
    void long.step();
    await until(() => queue.begun === 2);
    expect(queue.waiting).toBe(1);
    controller.abort(new Error("gone"));
    await expect(long.done).rejects.toThrow("gone");
    expect([queue.begun, queue.waiting]).toEqual([1, 1]);
    await short.step();
    short.end();
    expect(await short.done).toBe("done");
    expect(await next).toBe("next");
  });

  test("a job that fails does not affect others", async () => {
    const queue = new Queue(5);
    const failing = queue.run({ size: 1, signal: never, run: () => Promise.reject(new Error("failed")) });
    const { start } = story(queue);
    const next = start("next", 1, 1);
    await expect(failing).rejects.toThrow("failed");
    expect(await next).toBe("next");
  });

  test("after any order of arriving, failing and leaving, the queue is empty and every job was answered", async () => {
    const random = seededRandom(11);
    const queue = new Queue(1000);
    const outcomes = await Promise.allSettled(
      Array.from({ length: 500 }, async (_, i) => {
        const controller = new AbortController();
        await new Promise(resolve => setTimeout(resolve, random() * 40));
        if (random() < 0.4) setTimeout(() => controller.abort(new Error("gone")), random() * 20);
        return queue.run({
          size: 4 ** Math.floor(random() * 5),
          signal: controller.signal,
          run: async turn => {
            for (let chunk = 0; chunk < 8; chunk++) {
              if (random() < 0.01) throw new Error("failed");
              await turn();
              if (i % 50 === 0) await new Promise(resolve => setTimeout(resolve));
            }
          },
        });
      }),
    );
    expect(new Set(outcomes.map(({ status }) => status))).toEqual(new Set(["fulfilled", "rejected"]));
    expect([queue.waiting, queue.begun]).toEqual([0, 0]);
  });
});
