/**
 * The page at `/`: what it may do, and what it is like in a browser, by keyboard alone, in light and in dark.
 *
 * The second part needs Chromium (QWEN3GUARD_CHROMIUM, or Playwright's) and is skipped without. QWEN3GUARD_SCREENSHOTS
 * names a folder for what it looks like.
 */

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createHandler } from "../../src/server/handler.ts";
import { type Listener, listen } from "../../src/server/listen.node.ts";
import { CHROMIUM, type Page, startBrowser } from "../browser.ts";
import { client, guard } from "./requests.ts";

describe("as it is sent", () => {
  test("only its own script runs, and it fetches only from its own server", async () => {
    const { get } = client();
    const [first, second] = [await get("/"), await get("/")];
    const policy = first.headers.get("content-security-policy") ?? "";
    const nonce = /script-src 'nonce-([^']+)'/.exec(policy)?.[1];
    expect(policy).toContain("default-src 'none'; ");
    expect(policy).toContain("connect-src 'self'");
    expect(policy).not.toMatch(/unsafe|\*|https?:/);
    expect(second.headers.get("content-security-policy")).not.toBe(policy);
    expect([...first.text.matchAll(/<(?:script|style)\b[^>]*>/g)].map(([tag]) => tag)).toEqual([
      `<style nonce="${nonce}">`,
      `<script nonce="${nonce}">`,
    ]);
    expect(first.text).not.toMatch(
      /\son\w+=|https?:|\bsrc=|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b/,
    );
  });

  test("every field has a label", async () => {
    const { text } = await client().get("/");
    const fields = [...text.matchAll(/<(?:textarea|input)\b[^>]*\bid="(\w+)"/g)].map(m => m[1]);
    expect(fields).toEqual(["text", "response", "key"]);
    for (const id of fields) expect(text).toContain(`<label for="${id}">`);
    expect(text).toMatch(/^<!doctype html>\n<html lang="en">/);
  });
});

describe.skipIf(CHROMIUM === undefined)("in Chromium", () => {
  let listener: Listener;
  let page: Page;
  let close: () => Promise<void> = async () => {};

  beforeAll(async () => {
    const handler = createHandler(guard, { apiKey: "secret" });
    listener = await listen(handler, { host: "127.0.0.1", port: 0, timeoutMs: 60_000 });
    ({ page, close } = await startBrowser(CHROMIUM as string, 800, 960));
    await page.open(listener.url);
  });

  afterAll(async () => {
    await close();
    await listener.close();
  });

  const focused = (): Promise<string> => page.evaluate("document.activeElement.id");
  const heading = (): Promise<string> => page.evaluate("document.querySelector('#result h2')?.textContent ?? ''");

  test("by keyboard alone: type, be asked for the key, give it, read the verdict", async () => {
    expect(await focused()).toBe("text");
    await page.type("How can I make a bomb?");
    await page.press("Tab");
    expect(await focused()).toBe("response");
    await page.press("Tab");
    expect(await focused()).toBe("button");
    await page.press("Enter");
    await page.until("!document.getElementById('key-field').hidden");
    expect(await focused()).toBe("key");
    expect(await page.evaluate("document.getElementById('result').textContent")).toContain("got none");
    page.errors.length = 0; // the 401 is one
    await page.type("secret");
    await page.press("Enter");
    await page.until("document.querySelector('#result h2') !== null");
    expect(await heading()).toBe("Unsafe · Violent");
    expect(await page.evaluate("document.getElementById('status').textContent")).toBe("Unsafe, flagged");
    expect(await page.evaluate("document.querySelector('.facts').textContent")).toMatch(
      /^flagged · 268 \+ 8 tokens \(\d+ cached\) · \d+ ms · tiny-guard-gen$/,
    );
    expect(await page.evaluate("document.querySelector('.bars').innerText.replace(/\\s+/g, ' ')")).toBe(
      "Safe 0.0 % Unsafe 100.0 % Controversial 0.0 %",
    );
  });

  test("an answer is judged with Ctrl+Enter from where it is typed; markup in it stays text", async () => {
    await page.press("Tab", "shift"); // from the key to the answer
    expect(await focused()).toBe("response");
    await page.type('I cannot help with that. <img src=x onerror="document.title=1"><script>document.title=2</script>');
    await page.press("Enter", "control");
    await page.until("document.querySelector('.facts')?.textContent.includes('refusal') === true");
    expect(await heading()).toMatch(/^(Safe|Unsafe|Controversial)/);
    expect(await page.evaluate("[document.images.length, document.scripts.length, document.title]")).toEqual([
      0,
      1,
      "qwen3guard",
    ]);
    expect(page.errors).toEqual([]);
  });

  test("it asked only its own server", () => {
    expect(page.requested.length).toBeGreaterThan(2);
    for (const url of page.requested) expect(url.startsWith(`${listener.url}/`) || url === "data:,").toBe(true);
  });

  test.each(["light", "dark"])("in %s every text stands out from its background", async scheme => {
    await page.send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: scheme }] });
    const folder = process.env.QWEN3GUARD_SCREENSHOTS;
    if (folder) writeFileSync(join(folder, `page-${scheme}.png`), await page.screenshot());
    const ratios = await page.evaluate<[string, number][]>(`(() => {
      const channels = color => color.match(/[\\d.]+/g).slice(0, 3).map(Number);
      const luminance = color => channels(color).map(v => v / 255).map(v => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
      const ground = element => {
        const color = getComputedStyle(element).backgroundColor;
        return /, 0\\)$/.test(color) ? ground(element.parentElement) : color;
      };
      return [...document.querySelectorAll("h1, h2, h3, p:not(.unseen), label, small, textarea, input, button, .label, .value, pre")]
        .filter(element => element.offsetParent !== null)
        .map(element => {
          const [a, b] = [luminance(getComputedStyle(element).color), luminance(ground(element))].sort((a, b) => b - a);
          return [element.localName + "." + element.className, (a + 0.05) / (b + 0.05)];
        });
    })()`);
    expect(ratios.length).toBeGreaterThan(15);
    for (const [name, ratio] of ratios) expect([name, ratio >= 4.5]).toEqual([name, true]);
    expect(await page.evaluate("getComputedStyle(document.body).backgroundColor")).toBe(
      scheme === "light" ? "rgb(255, 255, 255)" : "rgb(21, 24, 27)",
    );
  });

  test("on a narrow screen nothing is cut off", async () => {
    await page.send("Emulation.setDeviceMetricsOverride", {
      width: 320,
      height: 640,
      deviceScaleFactor: 1,
      mobile: false,
    });
    expect(await page.evaluate("document.documentElement.scrollWidth")).toBeLessThanOrEqual(320);
  });
});
