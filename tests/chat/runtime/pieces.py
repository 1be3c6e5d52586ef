"""Pieces of text of every kind that people and programs write, to compare two tokenizers on."""

import random
import sysconfig
from collections.abc import Iterator
from pathlib import Path

# The first and the last character of letters of 20 scripts.
SCRIPTS = {
    "Latin": "az", "Latin extended": "\u00c0\u024f", "Greek": "\u0391\u03c9", "Cyrillic": "\u0410\u044f",
    "Armenian": "\u0531\u0586", "Hebrew": "\u05d0\u05ea", "Arabic": "\u0621\u064a", "Devanagari": "\u0904\u0939",
    "Bengali": "\u0985\u09b9", "Gurmukhi": "\u0a05\u0a39", "Tamil": "\u0b85\u0bb9", "Telugu": "\u0c05\u0c39",
    "Thai": "\u0e01\u0e2e", "Tibetan": "\u0f40\u0f6c", "Georgian": "\u10d0\u10f0", "Ethiopic": "\u1200\u1248",
    "Khmer": "\u1780\u17a2", "Hiragana and Katakana": "\u3041\u30ff", "Han": "\u4e00\u9fa5", "Hangul": "\uac00\ud7a3",
}  # fmt: skip
CODE = {
    "JavaScript": "const f = async (x) => { await g(`${x}`); };\n// note\nexport default f;\n",
    "TypeScript": "interface A<T> { readonly b?: T | null }\ntype C = keyof A<string>;\n",
    "Java": "public class A {\n\t@Override\n\tpublic int f() { return 0x1F; }\n}\n",
    "C++": "template <class T>\nauto f(T &&x) -> decltype(x) { return std::move(x); }\n",
    "Go": "func f(x []int) (int, error) {\n\tdefer g()\n\treturn len(x), nil\n}\n",
    "Rust": "fn f<'a>(x: &'a str) -> Option<u8> { x.bytes().next() }\n#[test]\n",
    "Shell": 'for f in *.txt; do\n  [ -f "$f" ] && echo "${f%.txt}" | sed \'s/a/b/\'\ndone\n',
    "SQL": "SELECT a.id, COUNT(*) FROM a LEFT JOIN b ON a.id = b.id WHERE b.x <> 'y' GROUP BY 1;\n",
    "HTML": '<div class="a"><!-- b --><a href="?a=1&amp;b=2">c</a></div>\n',
}
_SIGNS = (
    " \t\n\r\x0b\x0c\x1c\x85\xa0\u1680\u2003\u2028\u3000\u200b\ufeff.,;:!?'\"()[]{}<>|/\\+-*=_%$#@&^~`▁Ġ0123456789½Ⅳ"
)
_EMOJI = ["👍", "👩\u200d👩\u200d👧", "❤\ufe0f", "🇫🇷", "🏳\ufe0f\u200d🌈", "1\ufe0f\u20e3", "\U0001f9d1\U0001f3fd"]


def pieces(count: int, seed: int = 0) -> Iterator[str]:
    """Yield `count` pieces of text: words of scripts, code, control characters, emoji, random strings."""
    rng = random.Random(seed)
    sources = [*CODE.values(), *_files()]
    makers = [_words, _random, _controls, lambda rng: _code(rng, sources)]
    for number in range(count):
        yield makers[number % len(makers)](rng)


def _files() -> list[str]:
    standard = Path(sysconfig.get_path("stdlib"))
    files = [standard / f"{name}.py" for name in ("argparse", "ast", "asyncio/base_events", "datetime", "textwrap")]
    headers = [Path("/usr/include") / name for name in ("stdio.h", "stdlib.h", "string.h", "math.h", "errno.h")]
    return [file.read_text(encoding="utf-8", errors="ignore") for file in [*files, *headers] if file.is_file()]


def _words(rng: random.Random) -> str:
    first, last = map(ord, SCRIPTS[rng.choice([*SCRIPTS])])
    words = ["".join(chr(rng.randint(first, last)) for _ in range(rng.randint(1, 9))) for _ in range(rng.randint(1, 9))]
    return rng.choice(["", " ", "  "]) + rng.choice([" ", "  ", ", ", "\n", "-", "'s "]).join(words)


def _code(rng: random.Random, sources: list[str]) -> str:
    source = rng.choice(sources)
    start = rng.randrange(len(source))
    return source[start : start + rng.randint(1, 300)]


def _controls(rng: random.Random) -> str:
    choice = [*_SIGNS, *_EMOJI, *map(chr, range(32)), "a", "Z", "é", "e\u0301", "中"]
    return "".join(rng.choice(choice) for _ in range(rng.randint(0, 40)))


def _random(rng: random.Random) -> str:
    codes = [
        rng.choice([rng.randrange(0x3000), rng.randrange(0xD800), rng.randrange(0xE000, 0x110000)]) for _ in range(20)
    ]
    return "".join(map(chr, codes[: rng.randint(1, 20)]))
