/**
 * The rooms that `npm run test:mutants` measures: their sources, and the tests that may find a mutant there.
 *
 * A test file is listed where it drives the room's code in its own process. Left out are those that start the
 * command line, a server process or a browser (what they run is not the mutated code), and those that meet the
 * room only on the way to something else: they cost time and find nothing that the listed ones do not.
 */

export interface Room {
  /** Paths below src/; one that ends in "/" is a folder. */
  readonly sources: readonly string[];
  /** Paths below test/; the cheapest first, since a mutant that is found is not tried again. */
  readonly tests: readonly string[];
}

export const ROOMS: Readonly<Record<string, Room>> = {
  template: {
    sources: ["tokenizer/chat-template.ts", "tokenizer/chat-stream.ts", "tokenizer/template-strip.ts"],
    tests: [
      "tokenizer/template-strip.test.ts",
      "tokenizer/chat-template-parts.test.ts",
      "tokenizer/chat-stream.test.ts",
      "tokenizer/chat-template.test.ts",
      "tokenizer/tokenizer-json.test.ts",
      "tokenizer/encode-stream.test.ts",
    ],
  },
  session: {
    sources: ["model/session.ts", "model/session-pool.ts"],
    tests: [
      "model/session-pool.test.ts",
      "model/session-pieces.test.ts",
      "model/session.test.ts",
      "model/generate.test.ts",
      "model/equivalences.test.ts",
    ],
  },
  guard: {
    sources: ["guard/"],
    tests: [
      "guard/verdict.test.ts",
      "guard/answer.test.ts",
      "guard/conversation.test.ts",
      "guard/cut-rule.test.ts",
      "guard/policy.test.ts",
      "guard/answer-draft.test.ts",
      "guard/answer-stream-parts.test.ts",
      "guard/gen-stream-parts.test.ts",
      "guard/guard-alone.test.ts",
      "guard/windows.test.ts",
      "guard/edges.test.ts",
      "guard/guard.test.ts",
      "guard/stream-guard.test.ts",
      "guard/gen-stream.test.ts",
    ],
  },
  // These run in process, with a guard that judges at once. Each of the other proxy tests has a port and a real guard.
  proxy: {
    sources: ["server/proxy/"],
    tests: [
      "server/proxy/names.test.ts",
      "server/proxy/parts.test.ts",
      "server/proxy/question.test.ts",
      "server/proxy/routes.test.ts",
      "server/proxy/slots.test.ts",
      "server/proxy/upstream.test.ts",
      "server/proxy/event-reader.test.ts",
      "server/proxy/gate-alone.test.ts",
      "server/proxy/judge.test.ts",
      "server/proxy/upstream-error.test.ts",
      "server/proxy/call.test.ts",
      "server/proxy/whole.test.ts",
      "server/proxy/relay.test.ts",
      "server/proxy/proxy.test.ts",
      "server/proxy/gate.test.ts",
    ],
  },
  checkpoint: {
    sources: ["checkpoint/", "model/config.ts", "model/weights.ts", "model/quantised-weights.ts"],
    tests: [
      "checkpoint/safetensors-error.test.ts",
      "checkpoint/safetensors-writer.test.ts",
      "checkpoint/safetensors-sharded.test.ts",
      "checkpoint/safetensors-json.test.ts",
      "checkpoint/safetensors.test.ts",
      "checkpoint/bytes.test.ts",
      "model/config.test.ts",
      "checkpoint/text-file.test.ts",
      "checkpoint/hub/",
      "model/quantised-weights.test.ts",
      "model/weights.test.ts",
      "checkpoint/files.test.ts",
      "checkpoint/hub-browser.test.ts",
      "checkpoint/hub.test.ts",
    ],
  },
};
