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
  // In process, with a guard that judges at once. The other tests of the proxy have a port and a real guard each.
  proxy: {
    sources: ["app/server/proxy/"],
    tests: [
      "app/server/proxy/names.test.ts",
      "app/server/proxy/parts.test.ts",
      "app/server/proxy/question.test.ts",
      "app/server/proxy/routes.test.ts",
      "app/server/proxy/slots.test.ts",
      "app/server/proxy/upstream.test.ts",
      "app/server/proxy/event-reader.test.ts",
      "app/server/proxy/gate-alone.test.ts",
      "app/server/proxy/judge.test.ts",
      "app/server/proxy/upstream-error.test.ts",
      "app/server/proxy/call.test.ts",
      "app/server/proxy/whole.test.ts",
      "app/server/proxy/relay.test.ts",
      "app/server/proxy/proxy.test.ts",
      "app/server/proxy/gate.test.ts",
    ],
  },
  checkpoint: {
    sources: [
      "tensor/bytes.ts",
      "tensor/bytes.node.ts",
      "tensor/safetensors-error.ts",
      "tensor/safetensors-header.ts",
      "tensor/safetensors-json.ts",
      "tensor/safetensors-sharded.ts",
      "tensor/safetensors-window.ts",
      "tensor/safetensors-writer.ts",
      "tensor/safetensors.ts",
      "checkpoint/",
      "model/checkpoint-files.ts",
      "model/checkpoint-folder.node.ts",
      "model/open-checkpoint.ts",
      "model/config.ts",
      "model/weights.ts",
      "model/quantised-weights.ts",
      "model/hub/",
    ],
    tests: [
      "tensor/safetensors-error.test.ts",
      "tensor/safetensors-writer.test.ts",
      "tensor/safetensors-sharded.test.ts",
      "tensor/safetensors-json.test.ts",
      "tensor/safetensors.test.ts",
      "tensor/bytes.test.ts",
      "model/config.test.ts",
      "checkpoint/",
      "model/hub/",
      "model/quantised-weights.test.ts",
      "model/weights.test.ts",
      "model/checkpoint-files.test.ts",
      "model/hub-browser.test.ts",
      "model/hub.test.ts",
    ],
  },
};
