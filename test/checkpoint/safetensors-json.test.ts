/**
 * The JSON reader by itself, through windows of a few bytes, so that every byte of a text is once the last in the
 * window.
 */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { SafetensorsError } from "../../src/checkpoint/safetensors-error.ts";
import { JsonReader, STARTS } from "../../src/checkpoint/safetensors-json.ts";
import { TextWindow, WINDOW_BYTES } from "../../src/checkpoint/safetensors-window.ts";

const BEFORE = 2;
const MIB = 2 ** 20;

/**
 * A reader of a text in the middle of a file. It notes what is charged, and fails if a read goes outside of the text.
 */
class Reader extends JsonReader {
  readonly charged: number[] = [];

  constructor(text: string | Uint8Array, windowBytes: number = WINDOW_BYTES, maxStepBytes: number = MIB) {
    const bytes = Buffer.from(text);
    const readInto = async (target: Uint8Array, offset: number): Promise<void> => {
      if (!(offset >= BEFORE && offset + target.length <= BEFORE + bytes.length))
        expect.fail(`read of ${target.length} from ${offset} on`);
      target.set(bytes.subarray(offset - BEFORE, offset - BEFORE + target.length));
    };
    const source = { name: "f", byteLength: bytes.length + 9, readInto, close: async () => {} };
    super(source, BEFORE, bytes.length, maxStepBytes);
    this.window = new Uint8Array(windowBytes);
  }

  override charge(bytes: number): void {
    super.charge(bytes);
    this.charged.push(bytes);
  }
}

/** Objects as lists of their members, and null for what is neither text, list nor object. */
type Tree = null | string | Tree[] | { members: [string, Tree][] };

function tree(json: JsonReader): Tree {
  if (json.startsWith(STARTS.array)) {
    const elements: Tree[] = [];
    json.array("a list", index => {
      expect(index).toBe(elements.length);
      elements.push(tree(json));
    });
    return elements;
  }
  if (json.startsWith(STARTS.object)) {
    const members: [string, Tree][] = [];
    json.object("an object", true, key => void members.push([key, tree(json)]));
    return { members };
  }
  if (json.startsWith(0x22)) return json.text("a string");
  json.skip();
  return null;
}

async function read(json: JsonReader): Promise<Tree> {
  const members: [string, Tree][] = [];
  await json.membersInSteps("an object", true, (_, key) => {
    const value = tree(json);
    members.push([key, value]);
  });
  await json.step(() => json.end());
  return { members };
}

/** What `JSON.parse` makes of a text, in the same form. */
function parsed(text: string): Tree {
  const form = (value: unknown): Tree => {
    if (typeof value === "string") return value;
    if (Array.isArray(value)) return value.map(form);
    if (typeof value !== "object" || value === null) return null;
    return { members: Object.entries(value).map(([key, inner]) => [key, form(inner)]) };
  };
  return form(JSON.parse(text));
}

async function refusal(json: JsonReader, reading: (json: JsonReader) => Promise<unknown> = read): Promise<string> {
  const error = await reading(json).then(
    () => undefined,
    thrown => thrown,
  );
  if (!(error instanceof SafetensorsError)) throw new Error(`expected a SafetensorsError, got ${error}`);
  return error.message.replace(/^f: /, "");
}

/** Reads one value of a member, in one step. */
const inStep = (read: (json: Reader) => unknown) => async (json: JsonReader) =>
  json.membersInSteps("an object", true, () => void read(json as Reader));

const DOCUMENT = ` { "a" : "b\\n\\u00e9\\ud83d\\ude00é😀" , "":[ ], "c":[1 ,-2.5e+3,[ "x"], {} ] ,"\\"\\\\\\/":{"d":null,"e":true,"f":false}\t,"g":0.5E-7}\r\n`;

describe("a text", () => {
  test("is read alike through windows of any size", async () => {
    for (let windowBytes = 1; windowBytes <= DOCUMENT.length + 1; windowBytes++) {
      expect(await read(new Reader(DOCUMENT, windowBytes))).toEqual(parsed(DOCUMENT));
    }
  });

  test("that ends early is refused at its last byte, through any window", async () => {
    const bytes = Buffer.from(DOCUMENT.trimEnd());
    for (let length = 0; length < bytes.length; length++) {
      for (const windowBytes of [1, 10]) {
        const message = await refusal(new Reader(bytes.subarray(0, length), windowBytes));
        expect(message).toMatch(new RegExp(`, got [a-z ]+ at byte ${BEFORE + length}$`));
      }
    }
  });

  test("random ones are read as JSON.parse reads them", async () => {
    const value = fc
      .jsonValue({ maxDepth: 4, stringUnit: "binary" })
      .filter(one => !JSON.stringify(one).includes("__proto__"));
    const escaped = (text: string): string =>
      text.replace(/[^\0-\x7f]/g, unit => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
    await fc.assert(
      fc.asyncProperty(
        value,
        fc.nat(3),
        fc.boolean(),
        fc.integer({ min: 1, max: 99 }),
        async (inner, indent, isEscaped, windowBytes) => {
          const text = JSON.stringify({ inner }, null, indent);
          expect(await read(new Reader(isEscaped ? escaped(text) : text, windowBytes))).toEqual(parsed(text));
        },
      ),
      { seed: 6, numRuns: 100 },
    );
  });

  test("has the right byte offset in messages after the first of several steps", async () => {
    for (const windowBytes of [1, 5, WINDOW_BYTES]) {
      expect(await refusal(new Reader('{"a": 1, "bcdef": x}', windowBytes))).toBe(
        'expected a value, got "x" at byte 20',
      );
    }
  });

  test("may be as long in one step as was allowed, and no longer", async () => {
    const member = (length: number): string => `{"a":"${"x".repeat(length - 6)}"}`;
    for (const windowBytes of [1, 7, 100]) {
      expect(await read(new Reader(member(128), windowBytes, 128))).toEqual(parsed(member(128)));
      expect(await refusal(new Reader(`${" ".repeat(300)}${member(129)}`, windowBytes, 128))).toMatch(
        /^expected entries of at most 0\.0001220703125 MiB, got a larger one at byte \d+$/,
      );
    }
    expect(await refusal(new Reader(member(MIB + 1)))).toMatch("expected entries of at most 1 MiB, got a larger one");
    expect(await read(new Reader(`${" ".repeat(300)}${member(128)}${" ".repeat(300)}`, 10, 128))).toEqual(
      parsed(member(128)),
    );
  });

  test("names what was being read in the step that failed, and in no other", async () => {
    const json = new Reader('{"a":1,"b":x}');
    const message = await refusal(json, async () =>
      json.membersInSteps("an object", true, (_, key) => {
        if (key === "a") json.where = "first: ";
        json.skip();
      }),
    );
    expect(message).toBe('expected a value, got "x" at byte 13');
  });
});

describe("memory", () => {
  test("of 48 MiB may be charged, and not a byte more; the charge of a dropped step is taken back", async () => {
    const source = { name: "f", byteLength: 9, readInto: async () => {}, close: async () => {} };
    const window = new TextWindow(source, 0, 9, 9);
    const fresh = new TextWindow(source, 0, 9, 9);
    await fresh.step(() => fresh.charge(48 * MIB));
    await window.step(() => window.charge(48 * MIB - 1));
    await window.step(() => window.charge(1));
    await expect(window.step(() => window.charge(1))).rejects.toThrow(
      new SafetensorsError("f: expected names, shapes and metadata that fit 48 MiB of memory, got more at byte 0"),
    );
    const json = new Reader('{"a":1}', 1);
    await json.membersInSteps("an object", true, () => {
      json.charge(40 * MIB);
      json.skip();
    });
  });

  test("is charged one byte a character for Latin-1, two for other texts, and numbers after the eighth", async () => {
    const charged = async (value: string, read: (json: Reader) => unknown): Promise<number[]> => {
      const json = new Reader(`{"":${value}}`);
      await inStep(read)(json);
      return json.charged.slice(1); // the key's own
    };
    expect(await charged('"abc"', json => json.text("a"))).toEqual([3]);
    expect(await charged('"é"', json => json.text("a"))).toEqual([2]);
    expect(await charged('"a\\u0062"', json => json.text("a"))).toEqual([4]);
    expect(await charged('"abc"', json => json.word("a"))).toEqual([]);
    expect(await charged("[1,2,3,4,5,6,7,8]", json => json.integers("a", 9))).toEqual([]);
    expect(await charged("[1,2,3,4,5,6,7,8,9,10]", json => json.integers("a", 10))).toEqual([48, 48]);
    expect(await charged('{"a":"b","c":["d"]}', json => json.skip())).toEqual([]);
  });
});

describe("a word", () => {
  const word = async (text: string | Uint8Array): Promise<string> => {
    let got = "";
    const json = new Reader(Buffer.concat([Buffer.from('{"":"'), Buffer.from(text), Buffer.from('"}')]));
    await inStep(reader => {
      got = reader.word("a word");
    })(json);
    return got;
  };
  const refused = (text: Uint8Array): Promise<string> =>
    refusal(
      new Reader(Buffer.concat([Buffer.from('{"":"'), text, Buffer.from('"}')])),
      inStep(json => json.word("a word")),
    );

  test("is kept up to 96 bytes, counting escapes as they are written; a longer one becomes an ellipsis", async () => {
    expect([await word("x".repeat(96)), await word("x".repeat(97))]).toEqual(["x".repeat(96), "…"]);
    expect([await word("\\u0061".repeat(16)), await word("\\u0061".repeat(17))]).toEqual(["a".repeat(16), "…"]);
  });

  test("must be UTF-8, however long it is and wherever the check cuts it", async () => {
    for (const length of [97, WINDOW_BYTES - 1, WINDOW_BYTES, WINDOW_BYTES + 1]) {
      const text = Buffer.from(`${"x".repeat(length)}é😀${"x".repeat(100)}`);
      expect(await word(text)).toBe("…");
      for (const bad of [
        text.subarray(0, length + 1),
        text.subarray(0, length + 5),
        text.fill(0xff, length + 50, length + 51),
      ]) {
        expect(await refused(Buffer.from(bad))).toMatch(
          /^expected UTF-8, got other bytes in the string that ends at byte \d+$/,
        );
      }
    }
    expect(await refused(Buffer.of(0xc3))).toMatch(
      /^expected UTF-8, got other bytes in the string that ends at byte \d+$/,
    );
  });
});

describe("escapes", () => {
  const text = async (escapes: string): Promise<string> => {
    const got = (await read(new Reader(`{"":"${escapes}"}`))) as { members: [string, Tree][] };
    return got.members[0][1] as string;
  };

  test.each([
    ['\\"\\\\\\/\\b\\f\\n\\r\\t', '"\\/\b\f\n\r\t'],
    ["\\u0000\\u007f\\u0080\\u07ff\\u0800\\ud7ff\\ue000\\uffff", "\0\x7f\x80\u07ff\u0800\ud7ff\ue000\uffff"],
    ["\\ud800\\udc00\\udbff\\udfff\\ud83D\\uDE00", "\u{10000}\u{10ffff}😀"],
    ["\\uABCD\\uabcd\\u09aF", "\uabcd\uabcd\u09af"],
  ])("%s", async (escapes, expected) => expect(await text(escapes)).toBe(expected));

  test("in one text leave nothing in the next", async () => {
    expect(await read(new Reader('{"":["\\u0061bcdef","\\u0067","h","\\u0069jklmnopq"]}'))).toEqual({
      members: [["", ["abcdef", "g", "h", "ijklmnopq"]]],
    });
  });

  test.each([
    "\\ud800",
    "\\udbff",
    "\\udc00",
    "\\udfff",
    "\\ud800x",
    "\\ud83d_ude00",
    "\\ud83d\\n",
    "\\ud83d\\ud83d",
    "\\ud83d\\udbff",
    "\\ud83d\\ue000",
    "\\ude00\\ude00",
    "\\udc00\\udc00",
  ])("%s is half of a pair", async escapes => {
    expect(await refusal(new Reader(`{"":"${escapes}"}`))).toMatch(
      /^expected a pair of surrogate escapes, got one alone at byte \d+$/,
    );
  });

  test.each([..."gG`@/:{ \x7f"])("a digit that is %j", async digit => {
    const got = digit === " " ? "byte 0x20" : digit === "\x7f" ? "byte 0x7f" : `"${digit}"`;
    expect(await refusal(new Reader(`{"":"\\u00a${digit}"}`))).toBe(
      `expected four hexadecimal digits, got ${got} at byte 12`,
    );
  });
});

describe("numbers", () => {
  const integers = async (text: string, maxCount = Infinity): Promise<number[]> => {
    let got: number[] = [];
    await inStep(json => {
      got = json.integers("a list", maxCount);
    })(new Reader(`{"":[${text}]}`));
    return got;
  };
  const refused = (text: string, maxCount = Infinity): Promise<string> =>
    refusal(
      new Reader(`{"":[${text}]}`),
      inStep(json => json.integers("a list", maxCount)),
    );

  test("that are integers of at most 2^53 - 1 are read exactly", async () => {
    const values = ["0", "7", "999999999999999", "1000000000000000", "9007199254740991"];
    expect(await integers(values.join(" , "))).toEqual(values.map(Number));
    expect([await integers(""), await integers("1,2", 2)]).toEqual([[], [1, 2]]);
    expect(await refused("1,2,3", 2)).toMatch("expected 2 integers, got more");
  });

  test.each([
    "9007199254740992",
    "18446744073709551615",
    "18446744073709551616",
    "-1",
    "-0",
    "1.0",
    "1e0",
    "1E0",
    "1e-1",
    "10e-1",
  ])("%s is not such an integer", async text => {
    expect(await refused(text)).toMatch(/^expected an integer from 0 to 2\^53 - 1, got another number/);
  });

  test.each([
    ["x", 'expected an integer, got "x"'],
    ["", "expected an integer"],
    ["-", 'expected a digit, got "]"'],
    ["-x", 'expected a digit, got "x"'],
    ["00", "expected a number without a leading zero, got one"],
    ["1.x", 'expected a digit after the decimal point, got "x"'],
    ["1e+x", 'expected a digit of the exponent, got "x"'],
  ])("%s is not a number", async (text, message) => {
    expect(await refused(`1,${text}`)).toMatch(message);
  });

  test.each([
    "1E5",
    "1.5E3",
    "1e+5",
    "1E+05",
    "1e-400",
    "0e400",
    "-0.0E+999999999999999999",
    "1e308",
    `1.${"9".repeat(40)}e307`,
    `0.${"0".repeat(400)}1e709`,
    `1${"0".repeat(308)}`,
    `${"9".repeat(30)}e-400`,
    `1${"0".repeat(400)}e-400`,
  ])("%s is within float64", async text => {
    await read(new Reader(`{"":${text}}`));
  });

  test.each([
    "1E400",
    "1.5E400",
    "1e+309",
    `1.${"9".repeat(40)}e310`,
    `0.${"0".repeat(400)}1e710`,
    `1${"0".repeat(309)}`,
    `${"9".repeat(30)}e280`,
    "1e99999999999999999999",
  ])("%s is not within float64", async text => {
    expect(await refusal(new Reader(`{"":${text}}`))).toMatch(
      /^expected a number within the range of float64, got a larger one at byte \d+$/,
    );
  });
});

describe("a value that nobody asked for", () => {
  test.each([
    ["x", 'expected a value, got "x"'],
    ["]", 'expected a value, got "]"'],
    ["nulx", 'expected null, got "x"'],
    ["trux", 'expected true, got "x"'],
    ["falsx", 'expected false, got "x"'],
    ["nullx", 'expected "," or "}", got "x"'],
    ["{x}", 'expected a key in quotes, got "x"'],
    ["[1}", 'expected "," or "]", got "}"'],
    ["\x7f", "expected a value, got byte 0x7f"],
    ["\u0001", "expected a value, got byte 0x01"],
    ["!", 'expected a value, got "!"'],
    ["~", 'expected a value, got "~"'],
  ])("%s is refused", async (text, message) => {
    expect(await refusal(new Reader(`{"":${text}}`))).toMatch(message);
  });

  test("may be any value, and is read to its end", async () => {
    const skipped: string[] = [];
    const json = new Reader('{"a":true,"b":false,"c":null,"d":-1,"e":"f","g":[{}],"h":{"i":[]},"j":7}', 1);
    await json.membersInSteps("an object", true, (_, key) => {
      json.skip();
      skipped.push(key);
    });
    await json.step(() => json.end());
    expect(skipped).toEqual([..."abcdeghj"]);
  });

  test("may be nested 127 deep, counting what is around it, any number of times", async () => {
    const nested = (depth: number): string => "[".repeat(depth) + "]".repeat(depth);
    const objects = `${'{"":'.repeat(126)}1${"}".repeat(126)}`;
    await read(
      new Reader(`{"a":${nested(126)},"b":[${Array(200).fill("[],{}")}],"c":${nested(126)},"d":${objects}}`, 1),
    );
    expect(await refusal(new Reader(`{"a":${nested(127)}}`))).toBe(
      `expected at most 127 objects and arrays inside each other, got more at byte ${BEFORE + 5 + 126}`,
    );
  });

  test("a byte of 1 after the end is not the end", async () => {
    expect(await refusal(new Reader("{}\u0001"))).toBe("expected the end, got byte 0x01 at byte 4");
  });
});
