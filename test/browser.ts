/**
 * Chromium without a package: started headless, and spoken to in its DevTools protocol over a WebSocket.
 *
 * Which one: QWEN3GUARD_CHROMIUM, else one that Playwright has installed.
 */

import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";

export const CHROMIUM: string | undefined = process.env.QWEN3GUARD_CHROMIUM ?? installedByPlaywright();

function installedByPlaywright(): string | undefined {
  const cache = process.env.PLAYWRIGHT_BROWSERS_PATH ?? join(homedir(), ".cache", "ms-playwright");
  if (!existsSync(cache)) return undefined;
  const programs = [
    "chrome-linux/chrome",
    "chrome-linux64/chrome",
    "chrome-linux/headless_shell",
    "chrome-headless-shell-linux64/chrome-headless-shell",
  ];
  return readdirSync(cache)
    .filter(name => name.startsWith("chromium"))
    .flatMap(name => programs.map(program => join(cache, name, program)))
    .find(existsSync);
}

type Params = Readonly<Record<string, unknown>>;
interface Message {
  readonly id?: number;
  readonly method?: string;
  readonly params?: Params;
  readonly result?: Params;
  readonly error?: { readonly message: string };
}

export class Page {
  readonly #socket: WebSocket;
  readonly #session: string;
  readonly #pending: Map<number, (message: Message) => void>;
  #nextId = 100;
  /** Errors, refusals by the content security policy among them. */
  readonly errors: string[] = [];
  /** The addresses of everything it asked for. */
  readonly requested: string[] = [];

  constructor(socket: WebSocket, session: string, pending: Map<number, (message: Message) => void>) {
    this.#socket = socket;
    this.#session = session;
    this.#pending = pending;
  }

  send(method: string, params: Params = {}): Promise<Params> {
    const id = this.#nextId++;
    this.#socket.send(JSON.stringify({ id, method, params, sessionId: this.#session }));
    return new Promise((resolve, reject) => {
      this.#pending.set(id, ({ result = {}, error }) =>
        error ? reject(new Error(`${method}: ${error.message}`)) : resolve(result),
      );
    });
  }

  hear({ method, params }: Message): void {
    if (method === "Log.entryAdded") this.errors.push(JSON.stringify(params?.entry));
    if (method === "Runtime.exceptionThrown") this.errors.push(JSON.stringify(params?.exceptionDetails));
    if (method === "Network.requestWillBeSent")
      this.requested.push((params as { request: { url: string } }).request.url);
  }

  async open(url: string): Promise<void> {
    for (const domain of ["Page", "Runtime", "Log", "Network"]) await this.send(`${domain}.enable`);
    await this.send("Page.navigate", { url });
    await this.until("document.readyState === 'complete' && document.hasFocus()");
  }

  async evaluate<T>(expression: string): Promise<T> {
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", {
      expression,
      returnByValue: true,
      awaitPromise: true,
    });
    if (exceptionDetails) throw new Error(JSON.stringify(exceptionDetails));
    return (result as { value: T }).value;
  }

  async until(expression: string): Promise<void> {
    while (!(await this.evaluate<boolean>(expression))) await new Promise(resolve => setTimeout(resolve, 10));
  }

  async type(text: string): Promise<void> {
    await this.send("Input.insertText", { text });
  }

  async press(key: "Tab" | "Enter", modifiers: "none" | "control" | "shift" = "none"): Promise<void> {
    const code = { Tab: 9, Enter: 13 }[key];
    const bits = { none: 0, control: 2, shift: 8 }[modifiers];
    const event = { key, code: key, windowsVirtualKeyCode: code, modifiers: bits };
    await this.send("Input.dispatchKeyEvent", {
      ...event,
      type: "keyDown",
      ...(key === "Enter" ? { text: "\r" } : {}),
    });
    await this.send("Input.dispatchKeyEvent", { ...event, type: "keyUp" });
  }

  async screenshot(): Promise<Buffer> {
    return Buffer.from((await this.send("Page.captureScreenshot", { format: "png" })).data as string, "base64");
  }
}

/** A page of so many pixels, and what ends the browser. */
export async function startBrowser(
  executable: string,
  width: number,
  height: number,
): Promise<{ page: Page; close: () => Promise<void> }> {
  const profile = mkdtempSync(join(tmpdir(), "qwen3guard-browser-"));
  const args = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
    `--user-data-dir=${profile}`,
  ];
  const child = spawn(executable, [...args, `--window-size=${width},${height}`, "about:blank"]);
  const ended = new Promise<void>(resolve => child.on("close", () => resolve()));
  const address = await new Promise<string>((resolve, reject) => {
    let stderr = "";
    child.stderr.on("data", chunk => {
      stderr += chunk;
      const found = /^DevTools listening on (ws:\S+)$/m.exec(stderr);
      if (found) resolve(found[1]);
    });
    void ended.then(() => reject(new Error(stderr)));
  });

  const socket = new WebSocket(address);
  const pending = new Map<number, (message: Message) => void>();
  let page: Page | undefined;
  socket.addEventListener("message", ({ data }) => {
    const message: Message = JSON.parse(String(data));
    if (message.id === undefined) return page?.hear(message);
    pending.get(message.id)?.(message);
    pending.delete(message.id);
  });
  await new Promise(resolve => socket.addEventListener("open", resolve));
  let id = 0;
  const send = (method: string, params: Params): Promise<Params> =>
    new Promise(resolve => {
      pending.set(++id, ({ result = {} }) => resolve(result));
      socket.send(JSON.stringify({ id, method, params }));
    });
  const { targetId } = await send("Target.createTarget", { url: "about:blank" });
  const { sessionId } = await send("Target.attachToTarget", { targetId, flatten: true });
  page = new Page(socket, sessionId as string, pending);
  await page.send("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: false });
  return {
    page,
    close: async () => {
      socket.close();
      child.kill();
      await ended;
      rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}
