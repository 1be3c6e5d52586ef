"""Does the converted model say what the checkpoint says? Asked of the runtime that will run it."""

import gc
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from steps.errors import StepError

PROMPTS = ("What is the capital of France?", "Count from 1 to 10.")
NEW_TOKENS = 8
# The largest error of the logits that is right for a precision: root mean square difference to PyTorch's over their
# standard deviation, the mean over a prompt's tokens. Measured on the shipped model: fp32 4e-7, int8 0.008, int4 0.07
# to 0.09; a head that reads the wrong layer, 0.45 to 1.2, though it finds the same tokens in two layers of three.
# Random weights have no answer that survives rounding: 12 layers of Phi-3-mini's geometry are off by 0.69 in int4.
TOLERANCE = {"fp32": 1e-3, "fp16": 0.02, "bf16": 0.1, "int8": 0.1, "int4": 0.4}
_LOW_PRECISION_REFERENCE = 0.1  # where memory allows no float32 reference


def compare_first_tokens(checkpoint: Path, converted: Path, precision: str) -> dict[str, Any]:
    """Feed the checkpoint's greedy tokens to the converted model and compare the logits at each of them.

    Returns:
        prompts; tokens; equal, the tokens that are the converted model's first choice too (the others lie within the
        error); logit_error, relative, of the worse prompt; tolerance, what it may be; reference, PyTorch's dtype.

    Raises:
        StepError: the prompts' tokens differ, or the logits do by more than the tolerance.
    """
    reference, dtype = _reference(checkpoint)
    gc.collect()
    tolerance = TOLERANCE[precision] if dtype == "float32" else max(TOLERANCE[precision], _LOW_PRECISION_REFERENCE)
    equal, errors = 0, []
    for prompt, tokens, expected, found in _follow(converted, reference):
        equal += int((found.argmax(-1) == np.array(tokens)).sum())
        error = np.sqrt(((found - expected) ** 2).mean(-1)) / expected.std(-1)
        errors.append(float(error.mean()))
        if not errors[-1] <= tolerance:  # also when it is not a number
            raise StepError(
                f"the converted model does not continue {prompt!r} as the checkpoint does: its logits are off by "
                f"{errors[-1]:.2g} of their standard deviation, at most {tolerance} is right for {precision}; nothing "
                "was logged. Try other options or the other exporter"
            )
    return {
        "prompts": len(reference),
        "tokens": sum(len(tokens) for _, _, tokens, _ in reference),
        "equal": equal,
        "logit_error": float(f"{max(errors):.2g}"),
        "tolerance": tolerance,
        "reference": dtype,
    }


def _reference(folder: Path) -> tuple[list[tuple[str, list[int], list[int], np.ndarray]], str]:
    """(prompt, its tokens, the greedy tokens, the logits that chose them [tokens, vocabulary]), and PyTorch's dtype.

    float32, or the checkpoint's own where memory is short.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32 if 3 * size < _available_memory() else "auto"
    ).eval()
    found = []
    for prompt in PROMPTS:
        ids = tokenizer.apply_chat_template(_messages(prompt), add_generation_prompt=True, return_tensors="pt")
        with torch.no_grad():
            output = model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW_TOKENS, do_sample=False
            )
            logits = model(output).logits[0, ids.shape[1] - 1 : -1]
        found.append((prompt, ids[0].tolist(), output[0, ids.shape[1] :].tolist(), logits.float().numpy()))
    return found, str(model.dtype).removeprefix("torch.")


def _available_memory() -> int:
    """Bytes that can be had without swapping; a guess of 8 GB where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 8 << 30


def _follow(folder: Path, reference: list) -> Iterator[tuple[str, list[int], np.ndarray, np.ndarray]]:
    """(prompt, greedy tokens, PyTorch's logits, the converted model's) of each prompt, fed the same tokens.

    Raises:
        StepError: the runtime's tokenizer or template makes other tokens of a prompt.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime_genai as og

    model = og.Model(str(folder))
    tokenizer = og.Tokenizer(model)
    for prompt, ids, tokens, expected in reference:
        text = tokenizer.apply_chat_template(json.dumps(_messages(prompt)), add_generation_prompt=True)
        encoded = [int(token) for token in tokenizer.encode(text)]
        if encoded != ids:
            raise StepError(
                f"the runtime's tokenizer makes other tokens of {prompt!r} than transformers: {encoded} instead of "
                f"{ids}; nothing was logged. Report the checkpoint's tokenizer to onnxruntime-genai"
            )
        params = og.GeneratorParams(model)
        params.set_search_options(max_length=len(ids) + NEW_TOKENS + 1, do_sample=False)
        generator = og.Generator(model, params)
        found = []
        for fed in (ids, *([token] for token in tokens[:-1])):
            generator.append_tokens(fed)
            found.append(generator.get_logits().reshape(-1))
        yield prompt, tokens, expected, np.stack(found)


def _messages(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]
