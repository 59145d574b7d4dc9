/**
 * Counters, gauges and a histogram in Prometheus' text format, version 0.0.4. Labels come from fixed lists, so memory
 * does not grow with use.
 */

type Labels = Readonly<Record<string, string>>;

/** Upper bounds in seconds: a small guard's verdict takes hundredths of a second, a large one's seconds. */
const BUCKETS: readonly number[] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120];

interface Metric {
  readonly name: string;
  readonly help: string;
  readonly type: "counter" | "gauge" | "histogram";
  readonly lines: () => string[];
}

export class Metrics {
  readonly #metrics: Metric[] = [];

  /** Returns a function that adds to the counter. */
  counter(name: string, help: string): (labels: Labels, by?: number) => void {
    const values = new Map<string, number>();
    this.#metrics.push({
      name,
      help,
      type: "counter",
      lines: () => Array.from(values, ([labels, value]) => `${name}${labels} ${value}`),
    });
    return (labels, by = 1) => {
      const key = render(labels);
      values.set(key, (values.get(key) ?? 0) + by);
    };
  }

  gauge(name: string, help: string, read: () => number): void {
    this.#metrics.push({ name, help, type: "gauge", lines: () => [`${name} ${read()}`] });
  }

  /** Returns a function that records a time. */
  histogram(name: string, help: string): (labels: Labels, seconds: number) => void {
    const series = new Map<string, { readonly labels: Labels; readonly counts: number[]; sum: number }>();
    const lines = (): string[] =>
      Array.from(series.values()).flatMap(({ labels, counts, sum }) => {
        let total = 0;
        const buckets = counts.map((count, i) => {
          total += count;
          return `${name}_bucket${render({ ...labels, le: i < BUCKETS.length ? String(BUCKETS[i]) : "+Inf" })} ${total}`;
        });
        return [...buckets, `${name}_sum${render(labels)} ${sum}`, `${name}_count${render(labels)} ${total}`];
      });
    this.#metrics.push({ name, help, type: "histogram", lines });
    return (labels, seconds) => {
      const key = render(labels);
      let entry = series.get(key);
      if (entry === undefined) {
        entry = { labels, counts: Array.from({ length: BUCKETS.length + 1 }, () => 0), sum: 0 };
        series.set(key, entry);
      }
      const bucket = BUCKETS.findIndex(bound => seconds <= bound);
      entry.counts[bucket < 0 ? BUCKETS.length : bucket]++;
      entry.sum += seconds;
    };
  }

  /** The answer to Prometheus. */
  response(): Response {
    return new Response(this.#render(), { headers: { "content-type": "text/plain; version=0.0.4; charset=utf-8" } });
  }

  #render(): string {
    return this.#metrics
      .map(({ name, help, type, lines }) => [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`, ...lines()].join("\n"))
      .join("\n")
      .concat("\n");
  }
}

function render(labels: Labels): string {
  const pairs = Object.entries(labels).map(
    ([name, value]) => `${name}="${value.replace(/[\\"\n]/g, c => (c === "\n" ? "\\n" : `\\${c}`))}"`,
  );
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
}
