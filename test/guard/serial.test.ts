/** The operations of one stream: their order, and the end after them. */

import { expect, test, vi } from "vitest";
import { Serial } from "../../src/guard/serial.ts";

/** A promise that the test resolves. */
function gate(): { readonly opened: Promise<void>; readonly open: () => void } {
  let open = (): void => {};
  const opened = new Promise<void>(resolve => {
    open = resolve;
  });
  return { opened, open: () => open() };
}

test("operations run in the order of the calls, each after the one before it has ended", async () => {
  const serial = new Serial(() => {});
  const { opened, open } = gate();
  const order: string[] = [];
  const first = serial.run(async () => {
    await opened;
    order.push("first");
    return 1;
  });
  const second = serial.run(async () => order.push("second"));
  open();
  expect([await first, await second, order]).toEqual([1, 2, ["first", "second"]]);
});

test("after one that failed, all fail with its error and none runs", async () => {
  const serial = new Serial(() => {});
  const failed = serial.run(() => Promise.reject(new Error("failed")));
  const work = vi.fn(async () => {});
  await expect(serial.run(work)).rejects.toThrow("failed");
  await expect(failed).rejects.toThrow("failed");
  expect(work).not.toHaveBeenCalled();
});

test.each([true, false])("closing waits for what has begun and releases once, even if that fails (%s)", async fails => {
  const release = vi.fn();
  const serial = new Serial(release);
  const { opened, open } = gate();
  const running = serial.run(async () => {
    await opened;
    if (fails) throw new Error("failed");
  });
  serial.checkOpen();
  serial.close();
  serial.close();
  expect(() => serial.checkOpen()).toThrow("the stream has ended");
  await Promise.resolve();
  expect(release).not.toHaveBeenCalled();
  open();
  await running.catch(() => {});
  await vi.waitFor(() => expect(release).toHaveBeenCalledTimes(1));
  serial.close();
  await serial.run(async () => {});
  expect(release).toHaveBeenCalledTimes(1);
}); // biome-ignore format: one test
