/**
 * The program of the page at `/`. It is sent as its source text (`Function.toString`), so it uses nothing from outside
 * the function.
 *
 * Texts from the user and the server reach the page only as text nodes.
 */

interface Result {
  readonly flagged: boolean;
  readonly safety: string | null;
  readonly refusal: string | null;
  readonly scores: Readonly<Record<string, number>> | null;
  readonly categories: Readonly<Record<string, boolean>>;
  readonly category_scores: Readonly<Record<string, number | null>>;
  readonly text: string;
}

interface Answer {
  readonly model: string;
  readonly results: readonly Result[];
  readonly usage: {
    readonly prompt_tokens: number;
    readonly completion_tokens: number;
    readonly prompt_tokens_details: { readonly cached_tokens: number };
  };
}

export function pageScript(): void {
  const byId = <T extends HTMLElement>(id: string): T => document.getElementById(id) as T;
  const form = byId<HTMLFormElement>("form");
  const text = byId<HTMLTextAreaElement>("text");
  const response = byId<HTMLTextAreaElement>("response");
  const keyField = byId<HTMLElement>("key-field");
  const key = byId<HTMLInputElement>("key");
  const button = byId<HTMLButtonElement>("button");
  const status = byId<HTMLElement>("status");
  const result = byId<HTMLElement>("result");

  const element = (name: string, className: string, content: string | readonly Node[]): HTMLElement => {
    const made = document.createElement(name);
    made.className = className;
    if (typeof content === "string") made.textContent = content;
    else made.append(...content);
    return made;
  };
  const percent = (p: number): string => `${(p * 100).toFixed(1)} %`;
  const bar = (label: string, p: number): HTMLElement => {
    const fill = element("span", "fill", "");
    fill.style.inlineSize = `${p * 100}%`;
    const track = element("span", "track", [fill]);
    track.setAttribute("aria-hidden", "true");
    return element("li", "", [element("span", "label", label), track, element("span", "value", percent(p))]);
  };
  const list = (title: string, entries: readonly [string, number][]): HTMLElement[] => [
    element("h3", "", title),
    element(
      "ul",
      "bars",
      entries.map(([label, p]) => bar(label, p)),
    ),
  ];

  const show = ({ model, results, usage }: Answer, ms: number): void => {
    const [verdict] = results;
    const level = verdict.safety ?? "Unparsed";
    const named = Object.keys(verdict.categories).filter(name => verdict.categories[name]);
    const heading = element("h2", `level ${level.toLowerCase()}`, [level, ...named].join(" · "));
    const categories = Object.entries(verdict.category_scores)
      .flatMap(([name, p]): [string, number][] => (p === null ? [] : [[name, p]]))
      .sort(([, a], [, b]) => b - a);
    const facts = [
      verdict.flagged ? "flagged" : "not flagged",
      ...(verdict.refusal === null ? [] : [`refusal: ${verdict.refusal}`]),
      `${usage.prompt_tokens} + ${usage.completion_tokens} tokens (${usage.prompt_tokens_details.cached_tokens} cached)`,
      `${ms.toFixed(0)} ms`,
      model,
    ];
    result.replaceChildren(
      heading,
      element("p", "facts", facts.join(" · ")),
      ...list("Levels", Object.entries(verdict.scores ?? {})),
      ...list("Categories", categories),
      element("h3", "", "The model's answer"),
      element("pre", "", verdict.text),
    );
    status.textContent = `${level}, ${verdict.flagged ? "flagged" : "not flagged"}`;
  };

  const fail = (message: string): void => {
    result.replaceChildren(element("p", "error", message));
    status.textContent = message;
  };

  const moderate = async (): Promise<void> => {
    const started = performance.now();
    const messages = [{ role: "user", content: text.value }];
    if (response.value !== "") messages.push({ role: "assistant", content: response.value });
    const headers: Record<string, string> = { "content-type": "application/json" };
    if (key.value !== "") headers.authorization = `Bearer ${key.value}`;
    const answer = await fetch("v1/moderations", { method: "POST", headers, body: JSON.stringify({ messages }) });
    const body = await answer.json();
    if (answer.ok) return show(body, performance.now() - started);
    fail(body.error.message);
    if (answer.status === 401) {
      keyField.hidden = false;
      key.focus();
    }
  };

  form.addEventListener("submit", event => {
    event.preventDefault();
    if (button.getAttribute("aria-disabled") === "true") return;
    button.setAttribute("aria-disabled", "true"); // unlike `disabled`, this keeps the focus
    status.textContent = "Judging";
    moderate()
      .catch(() => fail("The server cannot be reached."))
      .finally(() => button.removeAttribute("aria-disabled"));
  });
  form.addEventListener("keydown", event => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
}
