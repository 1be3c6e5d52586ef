"""The table and the plot of conversion.py's samples."""

from pathlib import Path
from statistics import median
from typing import Any

Sample = dict[str, Any]  # see conversion.py


def of_way(samples: list[Sample], way: str, layers: int | None = None) -> list[Sample]:
    """Return the samples of the conversions that succeeded: "stock" or "ours", of a number of layers or of any."""
    return [
        sample
        for sample in samples
        if sample["way"] == way and layers in (None, sample["layers"]) and "failed" not in sample
    ]


def table(samples: list[Sample]) -> str:
    """Return the medians, and the medians of the ratios of each repetition, in Markdown."""
    rows = ["| layers | way | wall s | peak RssAnon GiB | bytes written | stock / ours: time, memory |"]
    rows.append("| --- | --- | --- | --- | --- | --- |")
    for layers in sorted({sample["layers"] for sample in samples}):
        stock, ours = of_way(samples, "stock", layers), of_way(samples, "ours", layers)
        if stock:
            rows.append(_row(layers, "stock", stock, ""))
        if ours:
            rows.append(_row(layers, "ours", ours, _ratios(stock, ours) if stock else ""))
    return "\n".join(rows)


def _row(layers: int, way: str, samples: list[Sample], ratios: str) -> str:
    wall, peak, size = (
        median(sample[name] for sample in samples) for name in ("wall_s", "peak_rss_anon_bytes", "bytes")
    )
    return f"| {layers} | {way} | {wall:.0f} | {peak / 2**30:.2f} | {size:,.0f} | {ratios} |"


def _ratios(stock: list[Sample], ours: list[Sample]) -> str:
    time, memory = (
        median(theirs[name] / our[name] for theirs, our in zip(stock, ours, strict=True))
        for name in ("wall_s", "peak_rss_anon_bytes")
    )
    return f"{time:.2f}, {memory:.1f}"


def plot(samples: list[Sample], path: Path) -> None:
    """Write an SVG of peak memory and wall time by the number of layers."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "phi-mlflow", "svg.fonttype": "none", "font.size": 11})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for way, colour, label in (("stock", "#c2410c", "stock builder"), ("ours", "#0369a1", "this project")):
        successful = of_way(samples, way)
        layers = sorted({sample["layers"] for sample in successful})
        for axis, name, unit in ((axes[0], "peak_rss_anon_bytes", 2**30), (axes[1], "wall_s", 1)):
            values = [median(sample[name] for sample in of_way(samples, way, count)) / unit for count in layers]
            axis.plot(layers, values, "o-", color=colour, label=label)
            last = f"{values[-1]:.1f}" if unit > 1 else f"{values[-1]:.0f} s"
            offset = {"xytext": (0, 7), "textcoords": "offset points"}
            axis.annotate(last, (layers[-1], values[-1]), ha="center", color=colour, **offset)
    for axis, title in ((axes[0], "Peak anonymous memory, GiB"), (axes[1], "Wall time, s")):
        axis.set_title(title, loc="left")
        axis.set_xlabel("layers of Phi-3-mini's geometry")
        axis.set_xticks(sorted({sample["layers"] for sample in samples}))
        axis.set_ylim(0, 1.15 * axis.get_ylim()[1])
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    figure.savefig(path, metadata={"Date": None}, facecolor="white")
