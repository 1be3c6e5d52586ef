"""Speed of the variants of a conversion: each beside the baseline, timed in turn by the runtime's own generator."""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import numpy as np

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the runtime is imported

from steps.chat.runtime.cpus import usable_cpus  # noqa: E402
from steps.conversion.convert import convert  # noqa: E402
from steps.conversion.options import parse_choice  # noqa: E402
from tests.benchmarks.machine import log  # noqa: E402

if TYPE_CHECKING:
    import onnxruntime_genai as og

PREFILL, DECODE = 128, 32  # tokens


class Variant(NamedTuple):
    """A precision, and the options of convert_onnx."""

    precision: str
    options: str


class SpeedSample(TypedDict):
    """One repetition of a variant and the baseline, in tokens a second."""

    precision: str
    options: str
    bytes: int  # of the converted folder
    convert_s: float
    prefill: float
    decode: float
    baseline_prefill: float
    baseline_decode: float


def load(folder: Path) -> "og.Model":
    """Load a converted model, with a thread for each usable CPU."""
    import onnxruntime_genai as og

    config = og.Config(str(folder))
    options = {"session_options": {"intra_op_num_threads": usable_cpus()}}
    config.overlay(json.dumps({"model": {"decoder": options}}))
    return og.Model(config)


def greedy_generator(model: "og.Model", length: int) -> "og.Generator":
    """Return a greedy generator for at most `length` tokens."""
    import onnxruntime_genai as og

    params = og.GeneratorParams(model)
    params.set_search_options(max_length=length, do_sample=False)
    return og.Generator(model, params)


def time_generator(generator: "og.Generator", tokens: list[int]) -> tuple[float, float]:
    """Return (prefill, decode) of a generator, in tokens a second.

    The decoded tokens are given and not sampled, so no end token cuts the repetition short.
    """
    generator.rewind_to(0)
    start = time.perf_counter()
    generator.append_tokens(tokens[:PREFILL])
    generator.get_logits()
    middle = time.perf_counter()
    for token in tokens[PREFILL : PREFILL + DECODE]:
        generator.append_tokens([token])
        generator.get_logits()
    return PREFILL / (middle - start), DECODE / (time.perf_counter() - middle)


def time_variants(checkpoint: Path, variants: Sequence[Variant], reps: int, scratch: Path) -> list[SpeedSample]:
    """Convert and time every variant, `reps` times in turn with the first variant, which is the baseline."""
    tokens = np.random.default_rng(0).integers(10, _vocabulary(checkpoint), PREFILL + DECODE).tolist()
    samples: list[SpeedSample] = []
    baseline = None
    for number, (precision, options) in enumerate(variants):
        out = scratch / f"onnx-{number}"
        convert_s = convert(checkpoint, out, parse_choice("genai", precision, options, "cpu")).seconds
        size = sum(file.stat().st_size for file in out.iterdir())
        generator = greedy_generator(load(out), PREFILL + DECODE + 1)
        baseline = baseline or generator
        for each in (generator, baseline):  # warm up
            time_generator(each, tokens)
        for _ in range(reps):
            baseline_prefill, baseline_decode = time_generator(baseline, tokens)
            prefill, decode = time_generator(generator, tokens)
            samples.append(
                SpeedSample(
                    precision=precision,
                    options=options,
                    bytes=size,
                    convert_s=convert_s,
                    prefill=prefill,
                    decode=decode,
                    baseline_prefill=baseline_prefill,
                    baseline_decode=baseline_decode,
                )
            )
        log(samples[-1])
    return samples


def _vocabulary(checkpoint: Path) -> int:
    return min(32000, json.loads((checkpoint / "config.json").read_text())["vocab_size"])


def speed_table(samples: list[SpeedSample]) -> str:
    """Return the medians, and the medians of the ratios to the baseline in the same repetition, in Markdown."""
    rows = ["| precision, options | size GB | prefill tok/s | decode tok/s | prefill ratio | decode ratio |"]
    rows.append("| --- | --- | --- | --- | --- | --- |")
    for variant in dict.fromkeys(Variant(sample["precision"], sample["options"]) for sample in samples):
        of_variant = [sample for sample in samples if (sample["precision"], sample["options"]) == variant]
        prefill, decode = median(s["prefill"] for s in of_variant), median(s["decode"] for s in of_variant)
        prefill_ratio = median(s["prefill"] / s["baseline_prefill"] for s in of_variant)
        decode_ratio = median(s["decode"] / s["baseline_decode"] for s in of_variant)
        rows.append(
            f"| {variant.precision} {variant.options} | {of_variant[0]['bytes'] / 1e9:.2f} | {prefill:.0f} | "
            f"{decode:.1f} | {prefill_ratio:.2f} | {decode_ratio:.2f} |"
        )
    return "\n".join(rows)
