"""Quality of the variants of a conversion: their predictions on a text against the predictions of float32."""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from steps.conversion.convert import convert
from steps.conversion.options import parse_choice
from tests.benchmarks.machine import log
from tests.benchmarks.options_speed import Variant, greedy_generator, load

WINDOW = 256  # tokens


class Window(NamedTuple):
    """A piece of text that is read at once. The predictions count from the one that is made at `first`."""

    tokens: list[int]
    first: int


@dataclass(frozen=True)
class Predictions:
    """How a model predicts each counted token of a text, against float32."""

    divergence: NDArray[np.float64]  # KL divergence from float32's distribution, nats
    same_top: NDArray[np.bool_]  # whether the most likely token is float32's
    likelihood: NDArray[np.float64]  # negative logarithm, of the text's token


class QualityResult(TypedDict):
    """The statistics of one variant, as OUT.json has them."""

    precision: str
    options: str
    bytes: int  # of the weights
    tokens: int
    kl_mean: float  # nats
    kl_standard_error: float
    kl_99: float  # quantile
    same_top: float  # share
    perplexity: float


def read_windows(checkpoint: Path, text: Path, count: int) -> list[Window]:
    """Cut a text into windows.

    Args:
        text: a text file, or an evaluation set (.jsonl) whose every question is a window, and whose answers count.
        count: the tokens to take from a text file, spread over the file.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    content = text.read_text(encoding="utf-8")
    if text.suffix == ".jsonl":
        return [_window_of(tokenizer, json.loads(line)) for line in content.splitlines()]
    tokens = tokenizer(content, verbose=False)["input_ids"]
    stride = max(1, len(tokens) // (count // WINDOW))
    starts = range(0, len(tokens) - WINDOW, stride)[: count // WINDOW]
    return [Window(tokens[start : start + WINDOW], 0) for start in starts]


def _window_of(tokenizer: Any, question: dict[str, Any]) -> Window:
    prompt = tokenizer.apply_chat_template(question["messages"], add_generation_prompt=True)
    answer = tokenizer(question["expected"], add_special_tokens=False)["input_ids"]
    return Window(prompt + answer, len(prompt) - 1)


def log_probabilities(folder: Path, windows: Sequence[Window]) -> Iterator[NDArray[np.float64]]:
    """Yield the log probabilities of each window, [tokens, vocabulary], by the runtime."""
    generator = greedy_generator(load(folder), WINDOW + 1)
    for window in windows:
        generator.rewind_to(0)
        generator.append_tokens(window.tokens)
        logits = generator.get_output("logits")[0].astype(np.float64)
        logits -= logits.max(-1, keepdims=True)
        yield logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def predict(folder: Path, windows: Sequence[Window], reference: Sequence[NDArray[np.float32]]) -> Predictions:
    """Return how a converted model predicts the windows, against float32's log probabilities."""
    divergence, same_top, likelihood = [], [], []
    for window, expected, actual in zip(windows, reference, log_probabilities(folder, windows), strict=True):
        counted = slice(window.first, -1)  # the last position predicts a token after the window
        divergence.append((np.exp(expected) * (expected - actual)).sum(-1)[counted])
        same_top.append((expected.argmax(-1) == actual.argmax(-1))[counted])
        positions = np.arange(window.first, len(window.tokens) - 1)
        likelihood.append(-actual[positions, window.tokens[window.first + 1 :]])
    return Predictions(np.concatenate(divergence), np.concatenate(same_top), np.concatenate(likelihood))


def compare_variants(
    checkpoint: Path, windows: Sequence[Window], variants: Sequence[Variant], scratch: Path
) -> list[QualityResult]:
    """Convert every variant, and compare its predictions with float32's. A variant that cannot be made is left out."""
    convert(checkpoint, scratch / "fp32", parse_choice("genai", "fp32", "", "cpu"))
    reference = [rows.astype(np.float32) for rows in log_probabilities(scratch / "fp32", windows)]  # half the memory
    results = []
    for number, variant in enumerate(variants):
        out = scratch / f"onnx-{number}"
        try:
            convert(checkpoint, out, parse_choice("genai", *variant, "cpu"))
        except Exception as error:  # some algorithms cannot quantise every geometry
            log(f"{variant.precision} {variant.options}: {error}")
            continue
        weight_bytes = (out / "model.onnx.data").stat().st_size
        results.append(_summary(variant, weight_bytes, predict(out, windows, reference)))
        shutil.rmtree(out)
        log(results[-1])
    return results


def _summary(variant: Variant, weight_bytes: int, predictions: Predictions) -> QualityResult:
    divergence = predictions.divergence
    return QualityResult(
        precision=variant.precision,
        options=variant.options,
        bytes=weight_bytes,
        tokens=len(divergence),
        kl_mean=float(divergence.mean()),
        kl_standard_error=float(divergence.std(ddof=1) / len(divergence) ** 0.5),
        kl_99=float(np.quantile(divergence, 0.99)),
        same_top=float(predictions.same_top.mean()),
        perplexity=float(np.exp(predictions.likelihood.mean())),
    )


def quality_table(results: list[QualityResult]) -> str:
    """Return the results in Markdown."""
    rows = ["| precision, options | mean KL, 1e-3 nats | 99% KL | same top token | perplexity |"]
    rows.append("| --- | --- | --- | --- | --- |")
    for result in results:
        rows.append(
            f"| {result['precision']} {result['options']} | {1e3 * result['kl_mean']:.2f} ± "
            f"{1e3 * result['kl_standard_error']:.2f} | {result['kl_99']:.3f} | {result['same_top']:.1%} | "
            f"{result['perplexity']:.3f} |"
        )
    return "\n".join(rows)
