"""Writes src/tokenizer/unicode-tables.ts. Usage: make_tables.py OUT.ts (needs the Python package tokenizers; under a minute).

Nothing here is read from a Unicode data file. Each table is the behaviour of the reference itself, asked code point by code point, because
the reference mixes two Unicode versions (its regex engine's and its normalizer's) and neither is the one a JavaScript engine has.
"""
import string
import sys
import unicodedata

from tokenizers import Regex, __version__, normalizers, pre_tokenizers

CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
DIGITS = string.digits + string.ascii_lowercase
nfc, nfd = normalizers.NFC().normalize_str, normalizers.NFD().normalize_str


def matched_by(pattern):
    """The code points that a one-character pattern matches: those that a Split with behaviour "removed" removes."""
    split = pre_tokenizers.Split(Regex(pattern), "removed")
    matched = set()
    for start in range(0, len(CODE_POINTS), 4096):
        text = "".join(map(chr, CODE_POINTS[start : start + 4096]))
        matched |= set(text) - {c for piece, _ in split.pre_tokenize_str(text) for c in piece}
    return {ord(c) for c in matched}


def combining_classes():
    """{code point: canonical combining class, where not 0}, from how the normalizer reorders marks against each other."""
    lowest, highest = "\u0334", "\u0345"  # classes 1 and 240: every other mark moves past at least one of them
    marks = [c for c in map(chr, CODE_POINTS) if nfd(c) == c and (nfd(highest + c) != highest + c or nfd(c + lowest) != c + lowest)]
    # Marks of one class keep their order. Each class gets its number from a mark that Python's own (newer) Unicode knows as well.
    groups = []
    for c in marks:
        group = next((g for g in groups if nfd(g[0] + c) == g[0] + c and nfd(c + g[0]) == c + g[0]), None)
        if group is None:
            groups.append(group := [])
        group.append(c)
    classes = {}
    for group in groups:
        numbers = {unicodedata.combining(c) for c in group}
        assert len(numbers) == 1 and numbers != {0}, (group, numbers)
        classes |= dict.fromkeys(map(ord, group), numbers.pop())
    return classes


def numeral(n):
    out = ""
    while True:
        n, digit = divmod(n, 36)
        out = DIGITS[digit] + out
        if n == 0:
            return out


def encode(value_of):
    """Runs of neighbours with one value as "gap length [value]" in base 36; gap counts from the end of the run before."""
    numbers, end = [], 0
    with_value = set(value_of.values()) != {True}
    points = sorted(value_of)
    i = 0
    while i < len(points):
        j = i
        while j < len(points) and points[j] == points[i] + j - i and value_of[points[j]] == value_of[points[i]]:
            j += 1
        numbers += [points[i] - end, j - i] + ([value_of[points[i]]] if with_value else [])
        end = points[j - 1] + 1
        i = j
    lines, line = [], ""
    for word in map(numeral, numbers):
        if len(line) + len(word) > 136:
            lines.append(line.rstrip())
            line = ""
        line += word + " "
    return "\n".join(lines + [line.rstrip()])


letters, numbers, spaces = matched_by(r"\p{L}"), matched_by(r"\p{N}"), matched_by(r"\s")
everything = set(CODE_POINTS)
assert not letters & numbers and not letters & spaces and not numbers & spaces
assert matched_by(r"[^\s\p{L}\p{N}]") == everything - letters - numbers - spaces
assert matched_by(r"[^\r\n\p{L}\p{N}]") == everything - letters - numbers - {10, 13} and matched_by(r"\S") == everything - spaces

classes = combining_classes()
decomposes = {c for c in CODE_POINTS if nfd(chr(c)) != chr(c)}
# A composite is what NFC puts together again; the last code point of its decomposition composes with what stands before it.
composites = {c for c in decomposes if nfc(chr(c)) == chr(c)}
seconds = {ord(nfd(chr(c))[-1]) for c in composites}
changes = (decomposes - composites) | seconds | {c for c in composites if ord(nfd(chr(c))[0]) in seconds} | set(classes)
assert min(changes) >= 0x300

TABLES = [
    ("LETTERS", "`\\p{L}` of the split regex.", dict.fromkeys(letters, True)),
    ("NUMBERS", "`\\p{N}` of the split regex.", dict.fromkeys(numbers, True)),
    ("WHITE_SPACE", "`\\s` of the split regex.", dict.fromkeys(spaces, True)),
    ("DECOMPOSES", "Code points with a canonical decomposition.", dict.fromkeys(decomposes, True)),
    ("NFC_UNSTABLE", "Code points that NFC may change, reorder, or join to the character before them (NFC_QC is not Yes, or not a starter).",
     dict.fromkeys(changes, True)),
    ("COMBINING_CLASSES", "Canonical combining classes other than 0: gap, length, class.", classes),
]
with open(sys.argv[1], "w", encoding="utf-8") as f:
    f.write(f"""/**
 * Character classes and normalization data as the reference has them. Generated; do not edit.
 *
 * Source: the behaviour of Python's tokenizers {__version__}, asked about every code point:
 *
 *     python tools/unicode/make_tables.py src/tokenizer/unicode-tables.ts
 *
 * Each table is a list of runs of neighbouring code points, "gap length" in base 36. The gap counts from the end of the
 * previous run.
 */
""")
    for name, what, value_of in TABLES:
        f.write(f"\n/** {what} {len(value_of)} code points. */\nexport const {name}: string = `\n{encode(value_of)}\n`;\n")
        print(name, len(value_of), "code points,", len(encode(value_of)), "characters")
