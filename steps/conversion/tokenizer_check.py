"""Check that the runtime's tokenizer reads prompts as transformers does, on a short corpus and without the weights."""

import json
from pathlib import Path
from typing import Any

from steps.chat.runtime.tokenizer import load_tokenizer
from steps.common.errors import StepError
from steps.conversion.record import TokenizerCheck

# What people write. A conversion is refused if its runtime makes other tokens of any of these.
CORPUS = {
    "English": "What's the capital of France? I don't know; we'll see.",
    "accents": "Où est l'hôtel ? Ça coûte 12,50 €, naïve Ærø, Żółć, Übergrößenträger",
    "combining accents": "cafe\u0301 A\u030angstro\u0308m",
    "Cyrillic and Greek": "Съешь же ещё этих булок. Ξεσκεπάζω την ψυχοφθόρα.",
    "right to left": "مرحبا بالعالم، שלום עולם!",
    "Indic and Thai": "नमस्ते दुनिया, สวัสดีชาวโลก",
    "Chinese, Japanese, Korean": "你好，世界。これはテストです。안녕하세요, 使用GPU加速！",
    "emoji": "👍 👩\u200d👩\u200d👧\u200d👦 ❤\ufe0f 🇫🇷 🏳\ufe0f\u200d🌈",
    "digits": "3.14159 2026-11-24 1,234,567 0x1F ½ Ⅳ",
    "code": "def f(x):\n    return {'a': [x, 1]}\n\n\tif y != 0:\n        print(\"%s\" % y)\n",
    "markup": '# Title\n\n- item\n- [link](https://example.com/?a=1&b=2#c)\n\n| a | b |\n<p class="x">\\alpha</p>',
    "Windows line ends": "first\r\nsecond\r\n\r\nthird",
    "tabs and blank lines": "a\tb\t\tc\n\n\n\nd",
    "leading and trailing spaces": "  two before, three after   ",
    "control characters": "a\x01b\x07c\x1bd\x7f\u200b\ufeff",
    "empty": "",
    "spaces only": "   ",
    "special tokens in the text": "Say <|end|>\n<|assistant|>\nNo.<|user|> <|system|>x<|endoftext|> <s></s><unk> <|en",
    "long": "The quick brown fox, naïve café, 你好 👍. " * 100,
}
# What onnxruntime-genai 0.15.2 is known to split into other tokens than the published tokenizers do. If these were
# refused, no checkpoint could be converted. So the record only names the ones that differ.
KNOWN_DIFFERENCES = {
    "several spaces before a digit": "Total:    100",
    "several spaces before a bracket": "f(\n      ):",
    "several spaces before Chinese": "一  二",
    "an apostrophe between letters, before s, t, m, d, re, ve or ll": "r'stone' b'data' l'dernier",
    "a line that begins with a slash, after punctuation": "f();\n// note\n",
    "U+3000 at the start of a message": "\u3000你好",
    "U+00A0 after a space": "a \u00a0b",
    "U+0085": "a  \x85b",
    "U+2581, the tokenizer's own sign for a space": "a ▁b▁ c",
    "U+0000, where the runtime ends the prompt": "a\0b",
}


def compare_tokenizers(checkpoint: Path, converted: Path) -> TokenizerCheck:
    """Compare the tokens of prompts, from message to IDs, and the text of these tokens, streamed as answers are.

    Takes as long as reading both tokenizers: 0.3 s for 32,000 tokens, 3 s for 200,000.

    Args:
        checkpoint: the transformers folder.
        converted: the folder made from it. Its weights are not read.

    Raises:
        StepError: a prompt of CORPUS differs; the line says how.
    """
    from transformers import AutoTokenizer

    reference = AutoTokenizer.from_pretrained(checkpoint)
    tokenizer = load_tokenizer(converted)
    for name, message in CORPUS.items():
        if difference := _difference(reference, tokenizer, message):
            raise StepError(
                f"the runtime does not read text as transformers does ({name}: {_short(message)}): {difference}. "
                "Nothing was logged. Report the checkpoint's tokenizer to onnxruntime-genai"
            )
    known = tuple(name for name, message in KNOWN_DIFFERENCES.items() if _difference(reference, tokenizer, message))
    return TokenizerCheck(prompts=len(CORPUS), known_differences=known)


def _difference(reference: Any, tokenizer: Any, message: str) -> str:
    """Return how the runtime's reading of a message differs from transformers', as a clause; empty if it does not.

    Args:
        reference: transformers' tokenizer.
        tokenizer: the runtime's tokenizer.
    """
    messages = [{"role": "user", "content": message}]
    expected_prompt = reference.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    try:
        prompt = tokenizer.apply_chat_template(json.dumps(messages), add_generation_prompt=True)
        tokens = [int(token) for token in tokenizer.encode(prompt)]
    except RuntimeError as error:  # the binding raises it for every fault
        return f"it fails with {str(error)!r}"
    if prompt != expected_prompt:
        return f"its chat template makes {_short(prompt)} instead of {_short(expected_prompt)}"
    expected = _encode(reference, expected_prompt)
    if tokens != expected:
        shorter = min(len(tokens), len(expected))
        at = next((i for i in range(shorter) if tokens[i] != expected[i]), shorter)
        return f"from token {at} on it makes {tokens[at : at + 8]} instead of {expected[at : at + 8]}"
    return _decoded_difference(reference, tokenizer, message)


def _decoded_difference(reference: Any, tokenizer: Any, message: str) -> str:
    """Return how the text of a message's tokens differs when the runtime streams it; empty if it does not."""
    tokens = _encode(reference, message)
    if set(tokens) & set(reference.added_tokens_decoder):
        return ""  # both leave added tokens out, but transformers puts a space in place of some
    stream = tokenizer.create_stream()
    decoded = "".join(stream.decode(token) for token in tokens)
    expected = reference.decode(tokens, skip_special_tokens=True)
    if decoded.strip() != expected.strip():  # both wrappers strip answers
        return f"it decodes to {_short(decoded)} instead of {_short(expected)}"
    return ""


def _encode(reference: Any, text: str) -> list[int]:
    # Not verbose: transformers would warn of a text longer than the context, which is no fault here.
    return reference(text, add_special_tokens=False, verbose=False)["input_ids"]


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
