"""Check that the logged model reads prompts as transformers does, on a short corpus and without the weights.

The logged model reads the folder with the library `tokenizers`. A difference there fails the conversion.
onnxruntime-genai has a tokenizer of its own, for those who run the folder in it. A difference there is a note.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException

from steps.chat.runtime.tokenizer import ChatTokenizer
from steps.common.errors import StepError
from steps.conversion.record import TokenizerCheck

# What people write.
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
# What onnxruntime-genai 0.15.2 is known to split into other tokens than the published tokenizers do.
HARD_TEXTS = {
    "several spaces before a digit": "Total:    100",
    "several spaces before a bracket": "f(\n      ):",
    "several spaces before Chinese": "一  二",
    "an apostrophe between letters, before s, t, m, d, re, ve or ll": "r'stone' b'data' l'dernier",
    "a line that begins with a slash, after punctuation": "f();\n// note\n",
    "U+3000 at the start of a message": "\u3000你好",
    "U+00A0 after a space": "a \u00a0b",
    "U+0085": "a  \x85b",
    "U+2581, the tokenizer's own sign for a space": "a ▁b▁ c",
    "U+0000, where onnxruntime-genai ends the prompt": "a\0b",
}


ALL_TEXTS = CORPUS | HARD_TEXTS


def compare_tokenizers(checkpoint: Path, converted: Path) -> TokenizerCheck:
    """Compare the tokens of prompts, from message to IDs, and the text of these tokens, streamed as answers are.

    Takes as long as reading the tokenizers: 0.5 s for 32,000 tokens, 5 s for 200,000.

    Args:
        checkpoint: the transformers folder.
        converted: the folder made from it. Its weights are not read.

    Returns:
        The texts that onnxruntime-genai's own tokenizer reads otherwise.

    Raises:
        StepError: the logged model would read one of ALL_TEXTS otherwise; the line says how.
    """
    from transformers import AutoTokenizer

    reference = AutoTokenizer.from_pretrained(checkpoint)
    try:
        tokenizer = ChatTokenizer(converted, special_tokens_in_text="special")
    except MlflowException as error:
        raise StepError(f"{error.message}. Nothing was logged. Mend the checkpoint's chat template") from None
    for name, message in ALL_TEXTS.items():
        if difference := _difference(reference, tokenizer, message):
            raise StepError(
                f"the custom model would not read text as transformers does ({name}: {_short(message)}): {difference}. "
                "Nothing was logged. Save the checkpoint's tokenizer again with transformers' save_pretrained"
            )
    return TokenizerCheck(texts=len(ALL_TEXTS), genai_differences=_genai_differences(reference, converted))


def _difference(reference: Any, tokenizer: ChatTokenizer, message: str) -> str:
    """Return how the logged model's reading of a message differs from transformers', as a clause; empty if it does not.

    Args:
        reference: transformers' tokenizer.
    """
    expected = _encode(reference, message)
    if difference := _token_difference(tokenizer.encode(message), expected):
        return difference
    if tokenizer.template is not None:
        messages = [{"role": "user", "content": message}]
        prompt = reference.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        if difference := _token_difference(tokenizer.encode_chat(messages), _encode(reference, prompt)):
            return f"in the chat template, {difference}"
    return _decoded_difference(reference, tokenizer.stream_decoder().decode, expected)


def _genai_differences(reference: Any, converted: Path) -> tuple[str, ...]:
    """Return the texts that onnxruntime-genai reads otherwise than transformers, or why it can't read any."""
    from steps.conversion.genai_tokenizer import load_tokenizer

    try:
        tokenizer = load_tokenizer(converted)
    except Exception as error:  # the binding raises plain exceptions
        return (f"every text: it cannot load this tokenizer ({' '.join(str(error).split())[:200]})",)
    return tuple(name for name, message in ALL_TEXTS.items() if _genai_differs(reference, tokenizer, message))


def _genai_differs(reference: Any, tokenizer: Any, message: str) -> bool:
    """Return whether onnxruntime-genai makes another prompt, other tokens or another text of a message."""
    prompt, expected = message, _encode(reference, message)
    try:
        if reference.chat_template is not None:
            messages = [{"role": "user", "content": message}]
            expected_prompt = reference.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
            prompt = tokenizer.apply_chat_template(json.dumps(messages), add_generation_prompt=True)
            if prompt != expected_prompt or tokenizer.encode(prompt).tolist() != _encode(reference, prompt):
                return True
        elif tokenizer.encode(prompt).tolist() != expected:
            return True
        return bool(_decoded_difference(reference, tokenizer.create_stream().decode, expected))
    except Exception:  # the binding raises plain exceptions for every fault
        return True


def _token_difference(tokens: list[int], expected: list[int]) -> str:
    if tokens == expected:
        return ""
    shorter = min(len(tokens), len(expected))
    at = next((i for i in range(shorter) if tokens[i] != expected[i]), shorter)
    return f"from token {at} on it makes {tokens[at : at + 8]} instead of {expected[at : at + 8]}"


def _decoded_difference(reference: Any, decode: Callable[[int], str], tokens: list[int]) -> str:
    """Return how the text of tokens differs when it is streamed; empty if it does not.

    Args:
        decode: gives the text that each token completes.
    """
    if set(tokens) & set(reference.added_tokens_decoder):
        return ""  # both leave added tokens out, but transformers puts a space in place of some
    decoded = "".join(decode(token) for token in tokens)
    expected = reference.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    if decoded.strip() != expected.strip():  # both wrappers strip answers
        return f"it decodes to {_short(decoded)} instead of {_short(expected)}"
    return ""


def _encode(reference: Any, text: str) -> list[int]:
    # Not verbose: transformers would warn of a text longer than the context, which is no fault here.
    return reference(text, add_special_tokens=False, verbose=False)["input_ids"]


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
