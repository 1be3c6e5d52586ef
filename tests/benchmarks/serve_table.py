"""The statistics of serve.py's samples, as a Markdown table: medians of the ratios within a repetition."""

from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import numpy as np

from tests.benchmarks.serve_abuse import AbuseResult
from tests.benchmarks.serve_speed import SpeedSample

_Figure = Callable[[SpeedSample], float]


def table(measured: dict[str, Any]) -> str:
    """Return the Markdown table of the content of OUT.json."""
    lines = ["| what | target | measured |", "| --- | --- | --- |"]
    samples: list[SpeedSample] = measured.get("speed", [])
    for model in dict.fromkeys(sample["model"] for sample in samples):
        of_model = [sample for sample in samples if sample["model"] == model]
        lines += [f"| {model}: {what} | {target} | {figure} |" for what, target, figure in _speed(of_model)]
    if "abuse" in measured:
        lines += [f"| {what} | {target} | {figure} |" for what, target, figure in _abuse(measured["abuse"])]
    return "\n".join(lines)


def _tokens_per_s(sample: SpeedSample) -> float:
    return sample["tokens_per_s"]


def _p95(sample: SpeedSample) -> float:
    return float(np.quantile(sample["first_token_s"], 0.95))


def _first(sample: SpeedSample) -> float:
    return sample["first_token_s"][0]


def _pairs(samples: list[SpeedSample], part: str, other: str, clients: int) -> list[tuple[SpeedSample, SpeedSample]]:
    """Return (this server's, the other engine's) samples of each repetition."""
    some = [sample for sample in samples if sample["part"] == part and sample["clients"] == clients]
    by_rep = {(sample["engine"], sample["rep"]): sample for sample in some}
    return [(by_rep["http", rep], sample) for (engine, rep), sample in by_rep.items() if engine == other]


def _ratio(pairs: list[tuple[SpeedSample, SpeedSample]], figure: _Figure, digits: int = 2) -> str:
    ratios = [figure(ours) / figure(theirs) for ours, theirs in pairs]
    ours, theirs = (median(figure(pair[index]) for pair in pairs) for index in (0, 1))
    spread = f"{min(ratios):.{digits}f} to {max(ratios):.{digits}f}"
    return f"{median(ratios):.{digits}f}x ({spread}; {ours:.3g} against {theirs:.3g})"


def _speed(samples: list[SpeedSample]) -> Iterator[tuple[str, str, str]]:
    for engine, target in (("in process, pieces", "0.95x"), ("in process, whole", "")):
        if pairs := _pairs(samples, "engine", engine, 8):
            yield f"tokens/s of 8 clients against the engine {engine}", target, _ratio(pairs, _tokens_per_s)
    if pairs := _pairs(samples, "first_token", "in process, pieces", 1):
        added = median(_first(ours) - _first(theirs) for ours, theirs in pairs)
        inside = median(_first(ours) - ours["engine_s"][0] for ours, _ in pairs)
        yield "added time to first token", "10 ms", f"{1e3 * added:.1f} ms"
        yield "the same, against the engine's own count of the same request", "10 ms", f"{1e3 * inside:.1f} ms"
    for clients in dict.fromkeys(sample["clients"] for sample in samples if sample["part"] == "llama"):
        pairs = _pairs(samples, "llama", "llama.cpp", clients)
        yield f"tokens/s of {clients} clients against llama.cpp's server", "1.1x", _ratio(pairs, _tokens_per_s)
        yield "p95 of their first token, s, against llama.cpp's server", "0.9x", _ratio(pairs, _p95)
    if pairs := _pairs(samples, "recipe", "mlflow models serve", 8):
        yield "tokens/s of 8 clients against `mlflow models serve`, usual recipe", "5x", _ratio(pairs, _tokens_per_s, 1)


def _abuse(result: AbuseResult) -> Iterator[tuple[str, str, str]]:
    quarters: dict[int, list[int]] = {}
    for sample in result["memory"]:
        quarters.setdefault(4 * sample["requests"] // (result["requests"] + 1), []).append(sample["rss_bytes"])
    growth = f"{median(quarters[3]) / median(quarters[1]) - 1:+.1%}" if len(quarters) == 4 else "not enough samples"
    yield f"wrong answers among {result['requests']:,} requests", "0", str(len(result["wrong"]))
    yield "client processes killed; answers given up", "", f"{result['killed']}; {result['aborted']:.0f}"
    yield "rows in use afterwards", "0", f"{result['running']:.0f}"
    yield "statuses of 500 and more, without 503 and 504", "0", str(result["failures"])
    yield "resident memory, median of the last quarter against the second", "within 2%", growth
