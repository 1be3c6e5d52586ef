"""Does the converted model say what the checkpoint says? Asked of the runtime that will run it."""

import gc
import json
import os
from pathlib import Path

import numpy as np

from steps.common.errors import StepError
from steps.conversion.mapped_model import float32_logits, open_model
from steps.conversion.record import LogitsCheck

PROMPTS = ("What is the capital of France?", "Count from 1 to 10.")
NEW_TOKENS = 8
# The largest error of the logits that is right for a precision: root mean square difference to PyTorch's over their
# standard deviation, the mean over a prompt's tokens. Measured on the shipped model: fp32 4e-7, int8 0.008, int4 0.07
# to 0.09; a head that reads the wrong layer, 0.45 to 1.2, though it finds the same tokens in two layers of three.
# Random weights have no answer that survives rounding: 12 layers of Phi-3-mini's geometry are off by 0.69 in int4.
TOLERANCE = {"fp32": 1e-3, "fp16": 0.02, "bf16": 0.1, "int8": 0.1, "int4": 0.4}


def compare_first_tokens(checkpoint: Path, converted: Path, precision: str) -> LogitsCheck:
    """Let the converted model answer, and compare its logits at each token with PyTorch's in float32.

    The two are never in memory at once, and PyTorch's weights stay in their files.

    Returns:
        prompts; tokens; equal, the tokens that are PyTorch's first choice too (the others lie within the error);
        logit_error, relative, of the worse prompt; tolerance, what it may be.

    Raises:
        StepError: the prompts' tokens differ, or the logits do by more than the tolerance.
    """
    from transformers import AutoTokenizer

    answers = _answers(converted)
    gc.collect()
    tokenizer, model = AutoTokenizer.from_pretrained(checkpoint), open_model(checkpoint)
    tolerance, equal, errors = TOLERANCE[precision], 0, []
    for prompt, (encoded, tokens, found) in zip(PROMPTS, answers, strict=True):
        ids = tokenizer.apply_chat_template(_messages(prompt), add_generation_prompt=True)
        if encoded != ids:
            raise StepError(
                f"the runtime's tokenizer makes other tokens of {prompt!r} than transformers: {encoded} instead of "
                f"{ids}; nothing was logged. Report the checkpoint's tokenizer to onnxruntime-genai"
            )
        expected = float32_logits(model, [*ids, *tokens[:-1]])[len(ids) - 1 :]
        equal += int((expected.argmax(-1) == np.array(tokens)).sum())
        error = np.sqrt(((found - expected) ** 2).mean(-1)) / expected.std(-1)
        errors.append(float(error.mean()))
        if not errors[-1] <= tolerance:  # also when it is not a number
            raise StepError(
                f"the converted model does not continue {prompt!r} as the checkpoint does: its logits are off by "
                f"{errors[-1]:.2g} of their standard deviation, at most {tolerance} is right for {precision}; nothing "
                "was logged. Try other options or the other exporter"
            )
    return LogitsCheck(
        prompts=len(answers),
        tokens=sum(len(tokens) for _, tokens, _ in answers),
        equal=equal,
        logit_error=float(f"{max(errors):.2g}"),
        tolerance=tolerance,
    )


def _answers(folder: Path) -> list[tuple[list[int], list[int], np.ndarray]]:
    """For each prompt its tokens, the converted model's greedy answer, and the logits of each token of that."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime_genai as og

    model = og.Model(str(folder))
    tokenizer = og.Tokenizer(model)
    config = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))
    ends = np.atleast_1d(config["model"]["eos_token_id"]).tolist()
    answers = []
    for prompt in PROMPTS:
        text = tokenizer.apply_chat_template(json.dumps(_messages(prompt)), add_generation_prompt=True)
        ids = [int(token) for token in tokenizer.encode(text)]
        params = og.GeneratorParams(model)
        params.set_search_options(max_length=len(ids) + NEW_TOKENS + 1, do_sample=False)
        generator = og.Generator(model, params)
        generator.append_tokens(ids)
        tokens, logits = [], []
        while True:
            logits.append(generator.get_logits().reshape(-1).copy())
            tokens.append(int(logits[-1].argmax()))
            if len(tokens) == NEW_TOKENS or tokens[-1] in ends:
                break
            generator.append_tokens(tokens[-1:])
        answers.append((ids, tokens, np.stack(logits)))
    return answers


def _messages(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]
