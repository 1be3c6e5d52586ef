"""The statistics of chat.py's samples, as a Markdown table.

Ratios are taken within a repetition, and their median is shown. So a machine that gets slower for a while changes a
few ratios only.
"""

from collections.abc import Iterator
from statistics import median
from typing import Any

import numpy as np

from tests.benchmarks.chat_single import RECIPE, THIS_PROJECT, EngineSample


def table(measured: dict[str, Any]) -> str:
    """Return the Markdown table of the content of OUT.json. Parts that were not measured have no lines."""
    lines = ["| what | measured |", "| --- | --- |"]
    for part, lines_of in _PARTS.items():
        if part in measured:
            lines += [f"| {what} | {figures} |" for what, figures in lines_of(measured)]
    return "\n".join(lines)


Lines = Iterator[tuple[str, str]]


def _single(measured: dict[str, Any]) -> Lines:
    samples: list[EngineSample] = measured["single"]
    for name in dict.fromkeys(sample["engine"] for sample in samples):
        of_engine = [sample for sample in samples if sample["engine"] == name]
        prefill = median(sample["prompt"] / sample["prefill_s"] for sample in of_engine)
        figures = f"{prefill:.0f}, {median(sample['decode'] for sample in of_engine):.1f}"
        if name != THIS_PROJECT:
            prefill_ratio, decode_ratio = _speed_ratios(samples, name)
            figures += f" (this project: {prefill_ratio:.2f}x, {decode_ratio:.2f}x)"
        yield f"{name}: prefill, decode tok/s", figures
    if "read_per_token" in measured:
        yield _share_of_bandwidth(samples, measured["read_per_token"])


def _speed_ratios(samples: list[EngineSample], other: str) -> tuple[float, float]:
    """Return how many times as fast this project is as another engine: (prefill, decode)."""
    by_rep = {(sample["engine"], sample["rep"]): sample for sample in samples}
    pairs = [(by_rep[THIS_PROJECT, rep], sample) for (engine, rep), sample in by_rep.items() if engine == other]
    return (
        median(theirs["prefill_s"] / ours["prefill_s"] for ours, theirs in pairs),
        median(ours["decode"] / theirs["decode"] for ours, theirs in pairs),
    )


def _share_of_bandwidth(samples: list[EngineSample], read_per_token: int) -> tuple[str, str]:
    """Return the line on decode speed, as a share of what the bandwidth of memory allows."""
    ours = [sample for sample in samples if "bandwidth" in sample]
    bandwidth = median(sample["bandwidth"] for sample in ours)
    share = median(sample["decode"] * read_per_token / sample["bandwidth"] for sample in ours)
    what = f"decode over bandwidth ({bandwidth / 1e9:.0f} GB/s) / bytes read ({read_per_token / 1e9:.2f} GB)"
    return what, f"{share:.2f}"


def _rows(measured: dict[str, Any]) -> Lines:
    samples = measured["rows"]
    ratio = median(_tokens_per_s(sample["rows"]) / _tokens_per_s(sample["requests"]) for sample in samples)
    yield "16 rows against 16 requests", f"{ratio:.2f}x"
    recipe = [sample for sample in measured.get("single", []) if sample["engine"] == RECIPE]
    if recipe:  # it answers one prompt after the other, so its time follows from its speed
        prefill = median(sample["prefill_s"] / sample["prompt"] for sample in recipe)
        decode = median(sample["decode"] for sample in recipe)
        batches = [sample["rows"] for sample in samples]
        ratio = median(
            (batch["prompt_tokens"] * prefill + batch["tokens"] / decode) / batch["seconds"] for batch in batches
        )
        yield "16 rows against the usual recipe", f"{ratio:.2f}x"


def _tokens_per_s(batch: dict[str, float]) -> float:
    return batch["tokens"] / batch["seconds"]


def _clients(measured: dict[str, Any]) -> Lines:
    samples = measured["clients"]
    ratio = median(sample["together"] / sample["sequential"] for sample in samples)
    waits = [wait / sample["prefill_s"] for sample in samples for wait in sample["first_token_s"]]
    yield "8 clients against one after the other", f"{ratio:.2f}x"
    yield "p95 of their first token over one prefill", f"{np.quantile(waits, 0.95):.2f}x"


def _turns(measured: dict[str, Any]) -> Lines:
    samples = measured["turns"]
    ratio = median(sample["fresh_s"] / sample["kept_s"] for sample in samples)
    kept = median(sample["kept_s"] for sample in samples)
    yield "turn 5 after 1,000 tokens: cached against read again", f"{ratio:.1f}x ({kept:.2f} s)"


def _extras(measured: dict[str, Any]) -> Lines:
    for name, with_it, without in (("loads", "checked", "unchecked"), ("requests", "switch", "none")):
        samples = measured["extras"][name]
        ratio = median(sample[with_it] / sample[without] for sample in samples)
        took = median(sample[with_it] for sample in samples)
        yield f"{name}: {with_it} against {without}", f"{ratio:.3f}x ({1e3 * took:.2f} ms)"


def _steady(measured: dict[str, Any]) -> Lines:
    sizes = [sample["rss_bytes"] for sample in measured["steady"]]
    later = sizes[len(sizes) // 4 :]
    yield "memory over the last three quarters of the requests", f"{max(later) / min(later) - 1:.1%}"


_PARTS = {
    "single": _single,
    "rows": _rows,
    "clients": _clients,
    "turns": _turns,
    "extras": _extras,
    "steady": _steady,
}
