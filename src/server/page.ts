/**
 * The page at `/`: type a text, see its verdict. It is one file that loads nothing else and calls only this server's
 * own endpoint.
 */

import { newId } from "./new-id.ts";
import { pageScript } from "./page-script.ts";

/**
 * Script and style carry a new nonce each time. The browser runs and shows nothing else, and fetches only from this
 * server.
 */
export function pageResponse(): Response {
  const nonce = newId("n");
  const policy = [
    "default-src 'none'",
    `script-src 'nonce-${nonce}'`,
    `style-src 'nonce-${nonce}'`,
    "connect-src 'self'",
    "img-src data:",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ];
  const headers = {
    "content-type": "text/html; charset=utf-8",
    "content-security-policy": policy.join("; "),
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
  };
  return new Response(html(nonce), { headers });
}

const STYLE = `
:root {
  color-scheme: light dark;
  --ground: #fff; --ink: #1a1c1e; --soft: #5a6067; --line: #8a9199; --track: #e4e7ea; --fill: #3465a4;
  --safe: #19692c; --unsafe: #a8201a; --controversial: #8a5300;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #15181b; --ink: #e8eaed; --soft: #a5acb4; --line: #767e87; --track: #2c3238; --fill: #7aa7e8;
    --safe: #74d188; --unsafe: #ff8a80; --controversial: #f0b860;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
main { max-width: 44rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.4rem; margin: 0; }
h2 { font-size: 1.3rem; margin: 0; }
h3 { font-size: 1rem; margin: 1.25rem 0 .25rem; }
p { margin: .25rem 0 1rem; }
.facts, header p { color: var(--soft); }
label { display: block; font-weight: 600; margin-top: .75rem; }
label small { font-weight: 400; color: var(--soft); }
textarea, input { width: 100%; font: inherit; color: inherit; background: transparent; border: 1px solid var(--line); border-radius: .4rem; padding: .5rem; }
textarea { resize: vertical; }
button { margin-top: 1rem; font: inherit; font-weight: 600; color: var(--ground); background: var(--ink); border: 0; border-radius: .4rem; padding: .6rem 1.4rem; }
button[aria-disabled] { opacity: .6; }
:focus-visible { outline: 3px solid var(--fill); outline-offset: 2px; }
#result:not(:empty) { margin-top: 1.5rem; border-top: 1px solid var(--line); padding-top: 1.25rem; }
.level::before { content: "?" / ""; margin-inline-end: .4em; }
.level.safe { color: var(--safe); }
.level.safe::before { content: "\\2713" / ""; }
.level.unsafe, .level.unparsed, .error { color: var(--unsafe); }
.level.unsafe::before { content: "\\2717" / ""; }
.level.controversial { color: var(--controversial); }
.bars { list-style: none; margin: 0; padding: 0; }
.bars li { display: grid; grid-template-columns: minmax(0, 17rem) minmax(0, 1fr) 4.5rem; gap: .75rem; align-items: center; }
.track { background: var(--track); border-radius: .2rem; block-size: .75rem; overflow: hidden; }
.fill { display: block; background: var(--fill); block-size: 100%; }
.value { text-align: right; font-variant-numeric: tabular-nums; }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.unseen { position: absolute; inline-size: 1px; block-size: 1px; overflow: hidden; clip-path: inset(50%); }
[hidden] { display: none; }
@media (max-width: 30rem) { .bars li { grid-template-columns: 1fr 4.5rem; row-gap: 0; margin-block-end: .5rem; } .bars .track { grid-row: 2; grid-column: 1 / -1; } }
@media (forced-colors: active) { .track { border: 1px solid; } .fill { background: Highlight; forced-color-adjust: none; } }
`;

function html(nonce: string): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>qwen3guard</title>
<link rel="icon" href="data:,">
<style nonce="${nonce}">${STYLE}</style>
</head>
<body>
<main>
<header>
<h1>qwen3guard</h1>
<p>What the guard thinks of a text, or of an answer to it.</p>
</header>
<form id="form">
<label for="text">Text</label>
<textarea id="text" rows="3" autofocus></textarea>
<label for="response">Answer to it <small>(optional; the answer is judged then)</small></label>
<textarea id="response" rows="2"></textarea>
<div id="key-field" hidden>
<label for="key">API key of the server</label>
<input id="key" type="password" autocomplete="off">
</div>
<button id="button" aria-keyshortcuts="Control+Enter">Judge</button>
</form>
<p id="status" class="unseen" role="status"></p>
<section id="result" aria-label="Verdict"></section>
</main>
<script nonce="${nonce}">(${pageScript.toString()})();</script>
</body>
</html>
`;
}
