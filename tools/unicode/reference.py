"""The reference as a filter. Usage: reference.py [TOKENIZER.json]

Each line of stdin is a JSON request, each line of stdout its answer:
  {"text": "..."}      -> {"ids": [...], "decoded": "..."}   (encoded without special tokens around it; special tokens are kept in decoded)
  {"nfc": "..."}       -> {"nfc": "..."}
  {"decode": [id...]}  -> {"decoded": "..."}
"""
import json
import sys

from tokenizers import Tokenizer, normalizers

tokenizer = Tokenizer.from_file(sys.argv[1]) if len(sys.argv) > 1 else None
nfc = normalizers.NFC()
for line in sys.stdin:
    request = json.loads(line)
    if "nfc" in request:
        answer = {"nfc": nfc.normalize_str(request["nfc"])}
    elif "decode" in request:
        answer = {"decoded": tokenizer.decode(request["decode"], skip_special_tokens=False)}
    else:
        ids = tokenizer.encode(request["text"], add_special_tokens=False).ids
        answer = {"ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=False)}
    sys.stdout.write(json.dumps(answer) + "\n")
