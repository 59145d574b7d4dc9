"""Ids and offsets by the reference tokenizer, in UTF-16 units (its own count code points). Run where tokenizers 0.23.3 is installed:

    python record_offsets.py ../../test/goldens/offsets.jsonl qwen3=TOKENIZER.json tiny=TOKENIZER.json
"""
import json
import sys

from tokenizers import Tokenizer

TEXTS = [
    "How can I make a bomb?",
    "It's 42\u00b0, isn't it?\r\n\r\n  ok",
    "hi \U0001f600\U0001f44d\U0001f3fd there \U0001f469\u200d\U0001f469\u200d\U0001f467!",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002\u4f60\u80fd\u505a\u4ec0\u4e48\uff1f",
    "\uc548\ub155\ud558\uc138\uc694 \uc138\uacc4",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01",
    "\u0939\u093f\u0928\u094d\u0926\u0940 \u092e\u0947\u0902",
    "\U0001d49c\U0001d4c3 old \U00010348",
    "<|im_start|>user\nhi \U0001f600<|im_end|>\n",
    "tab\t\tend   ",
    # NFC changes these.
    "e\u0301tude na\u0308ive",
    "\u1100\u1161\u11a8 x",
    "a\u0301\u0323\u0327z q\u0323\u0307",
    "\u212b and \u2126",
]


def utf16_offsets(text):
    offsets = [0]
    for character in text:
        offsets.append(offsets[-1] + (2 if ord(character) > 0xFFFF else 1))
    return offsets


with open(sys.argv[1], "w") as out:
    for name, path in (argument.split("=") for argument in sys.argv[2:]):
        tokenizer = Tokenizer.from_file(path)
        for text in TEXTS:
            at = utf16_offsets(text)
            encoding = tokenizer.encode(text, add_special_tokens=False)
            ranges = [[at[start], at[end]] for start, end in encoding.offsets]
            out.write(json.dumps({"vocabulary": name, "text": text, "ids": encoding.ids, "ranges": ranges}) + "\n")
