"""Check that a converted model answers as its checkpoint does, in the runtime that will run it."""

import gc
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from steps.common.errors import StepError
from steps.conversion.mapped_model import float32_logits, open_model
from steps.conversion.record import LogitsCheck

PROMPTS = ("What is the capital of France?", "Count from 1 to 10.")
NEW_TOKENS = 8  # of an answer, at most
# The largest error of the logits that a right conversion may have, by precision. The error is the root mean square
# difference from PyTorch's logits, divided by their standard deviation; the mean over an answer's tokens.
# Measured on the shipped model: fp32 4e-7, int8 0.008, int4 0.07 to 0.09. A head that reads the wrong layer gives 0.45
# to 1.2, although it finds the same tokens in two layers of three.
# Random weights do not survive rounding: 12 layers of Phi-3-mini's geometry have an error of 0.69 in int4.
TOLERANCE = {"fp32": 1e-3, "fp16": 0.02, "bf16": 0.1, "int8": 0.1, "int4": 0.4}


@dataclass(frozen=True)
class _Answer:
    """The greedy answer of the converted model to a prompt."""

    prompt: str
    prompt_tokens: list[int]
    tokens: list[int]
    logits: np.ndarray  # [tokens, vocabulary]: each token is the largest of its row


def compare_first_tokens(checkpoint: Path, converted: Path, precision: str) -> LogitsCheck:
    """Let the converted model answer PROMPTS, and compare its logits with PyTorch's in float32.

    The two models are never in memory together, and PyTorch's weights stay in their files.

    Raises:
        StepError: the tokens of a prompt differ, or the logits differ by more than the tolerance of the precision.
    """
    from transformers import AutoTokenizer

    answers = list(_answers(converted))
    gc.collect()  # the runtime's model, before PyTorch's is opened
    tokenizer, model = AutoTokenizer.from_pretrained(checkpoint), open_model(checkpoint)
    tolerance, equal, errors = TOLERANCE[precision], 0, []
    for answer in answers:
        _check_prompt_tokens(answer, tokenizer)
        expected = float32_logits(model, [*answer.prompt_tokens, *answer.tokens[:-1]])[len(answer.prompt_tokens) - 1 :]
        equal += int((expected.argmax(-1) == np.array(answer.tokens)).sum())
        errors.append(_error(answer.logits, expected))
        if not errors[-1] <= tolerance:  # true also if the error is not a number
            raise StepError(
                f"the converted model does not continue {answer.prompt!r} as the checkpoint does: its logits differ by "
                f"{errors[-1]:.2g} of their standard deviation, and {tolerance} is the most for {precision}. Nothing "
                "was logged. Try other options or the other exporter"
            )
    return LogitsCheck(
        prompts=len(answers),
        tokens=sum(len(answer.tokens) for answer in answers),
        equal=equal,
        logit_error=float(f"{max(errors):.2g}"),
        tolerance=tolerance,
    )


def _check_prompt_tokens(answer: _Answer, tokenizer: Any) -> None:
    """Raise StepError if the runtime's tokens of the prompt are not transformers' tokens."""
    expected = tokenizer.apply_chat_template(_messages(answer.prompt), add_generation_prompt=True)
    if answer.prompt_tokens != expected:
        raise StepError(
            f"the runtime's tokenizer makes other tokens of {answer.prompt!r} than transformers: "
            f"{answer.prompt_tokens} instead of {expected}. Nothing was logged. Report the checkpoint's tokenizer to "
            "onnxruntime-genai"
        )


def _error(logits: np.ndarray, expected: np.ndarray) -> float:
    """Return the error that TOLERANCE limits, of logits [tokens, vocabulary]."""
    relative = np.sqrt(((logits - expected) ** 2).mean(-1)) / expected.std(-1)
    return float(relative.mean())


def _answers(folder: Path) -> Iterator[_Answer]:
    """Yield the converted model's greedy answer to each of PROMPTS."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when the runtime is imported
    import onnxruntime_genai as og

    model = og.Model(str(folder))
    tokenizer = og.Tokenizer(model)
    config = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))
    end_tokens = np.atleast_1d(config["model"]["eos_token_id"]).tolist()
    for prompt in PROMPTS:
        text = tokenizer.apply_chat_template(json.dumps(_messages(prompt)), add_generation_prompt=True)
        prompt_tokens = [int(token) for token in tokenizer.encode(text)]
        params = og.GeneratorParams(model)
        params.set_search_options(max_length=len(prompt_tokens) + NEW_TOKENS + 1, do_sample=False)
        generator = og.Generator(model, params)
        generator.append_tokens(prompt_tokens)
        tokens: list[int] = []
        logits: list[np.ndarray] = []
        while len(tokens) < NEW_TOKENS and not (tokens and tokens[-1] in end_tokens):
            if tokens:
                generator.append_tokens(tokens[-1:])
            logits.append(generator.get_logits().reshape(-1).copy())
            tokens.append(int(logits[-1].argmax()))
        yield _Answer(prompt, prompt_tokens, tokens, np.stack(logits))


def _messages(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]
