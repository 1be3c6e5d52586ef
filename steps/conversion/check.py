"""Does the converted model say what the checkpoint says? Asked of the runtime that will run it."""

import gc
import json
import os
from pathlib import Path
from typing import Any

from steps.errors import StepError

PROMPTS = ("What is the capital of France?", "Count from 1 to 10.")
NEW_TOKENS = 8
# How far below its best logit the converted model may place the checkpoint's token, in standard deviations of the
# logits: nothing but rounding in full precision, near ties when quantised. A broken graph is off by several.
TOLERANCE = {"fp32": 0.01, "fp16": 0.1, "bf16": 0.3, "int8": 0.5, "int4": 1.0}


def compare_first_tokens(checkpoint: Path, converted: Path, precision: str) -> dict[str, Any]:
    """Feed the checkpoint's greedy tokens to the converted model and see whether it would have chosen them.

    Returns:
        prompts, tokens, equal (the tokens that are the converted model's first choice too), worst_gap and tolerance
        (standard deviations).

    Raises:
        StepError: the prompts' tokens differ, or a token lies below the tolerance.
    """
    reference = _reference_tokens(checkpoint)
    gc.collect()
    result = _follow(converted, reference)
    result["tolerance"] = TOLERANCE[precision]
    if result["worst_gap"] > result["tolerance"]:
        raise StepError(
            f"the converted model does not continue {result.pop('worst_prompt')!r} as the checkpoint does: its logit "
            f"for the checkpoint's token is {result['worst_gap']:.2f} standard deviations below its best, at most "
            f"{result['tolerance']} is right for {precision}; nothing was logged. Try other options or exporter"
        )
    del result["worst_prompt"]
    return result


def _reference_tokens(folder: Path) -> list[tuple[str, list[int], list[int]]]:
    """(prompt, prompt tokens, greedy tokens) from PyTorch in float32, or in the checkpoint's dtype where memory is short."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    room = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    dtype = torch.float32 if 3 * size < room else "auto"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    found = []
    for prompt in PROMPTS:
        ids = tokenizer.apply_chat_template(_messages(prompt), add_generation_prompt=True, return_tensors="pt")
        with torch.no_grad():
            output = model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW_TOKENS, do_sample=False
            )
        found.append((prompt, ids[0].tolist(), output[0, ids.shape[1] :].tolist()))
    return found


def _follow(folder: Path, reference: list[tuple[str, list[int], list[int]]]) -> dict[str, Any]:
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime_genai as og

    model = og.Model(str(folder))
    tokenizer = og.Tokenizer(model)
    equal = count = 0
    worst_gap, worst_prompt = 0.0, ""
    for prompt, ids, tokens in reference:
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
        fed = ids
        for token in tokens:
            generator.append_tokens(fed)
            logits = generator.get_logits().reshape(-1)
            gap = float((logits.max() - logits[token]) / logits.std())
            equal, count, fed = equal + (gap == 0), count + 1, [token]
            if not gap <= worst_gap:  # also when it is not a number
                worst_gap, worst_prompt = gap if gap == gap else float("inf"), prompt
    return {
        "prompts": len(reference),
        "tokens": count,
        "equal": equal,
        "worst_gap": round(worst_gap, 4),
        "worst_prompt": worst_prompt,
    }


def _messages(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]
