#!/usr/bin/env python3
"""Our streaming conversion and the stock model builder on the same checkpoints of a published geometry.

For each number of layers, a checkpoint of random bfloat16 weights is converted by both in turn, each in a process of
its own, --reps times; ours alone where the stock builder cannot (--alone). Measured: wall time of the process, seconds
of the conversion alone, peak RssAnon (the kernel's figure, sampled every 10 ms), bytes written; and every tensor's
SHA-256, which must be the stock builder's.

Usage: python tests/benchmarks/conversion.py OUT.json [--geometry phi-3-mini] [--layers 4 8 12] [--alone 32]
           [--options block_size=128] [--precision int4] [--reps 3] [--plot OUT.svg]
       (inside the project's environment; 25 GB of disk)

OUT.json holds the raw samples and the environment; a Markdown table is printed.
"""

import argparse
import hashlib
import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.benchmarks.machine import environment, watched  # noqa: E402

PACKAGES = ("onnxruntime-genai", "onnxruntime", "onnx-ir", "torch", "transformers")


def convert_once(folder: str, out: str, precision: str, options: str) -> None:
    """In the child: convert, and print the seconds that it took."""
    from steps.conversion.convert import convert
    from steps.conversion.options import parse_choice

    result = convert(Path(folder), Path(out), parse_choice("genai", precision, options, "cpu"))
    print(json.dumps({"seconds": result.seconds}))


def make_once(folder: str, geometry: str, layers: int) -> None:
    """In the child: write a checkpoint."""
    from tests.checkpoints.geometries import PUBLISHED, make_checkpoint

    tiny = ROOT / "params" / "tiny-phi3"
    make_checkpoint(Path(folder), geometry, tiny, **PUBLISHED[geometry], num_hidden_layers=layers)
    print("{}")


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each tensor of a converted folder, read one at a time."""
    import onnx_ir

    graph = onnx_ir.load(folder / "model.onnx").graph
    return {name: hashlib.sha256(value.const_value.tobytes()).hexdigest() for name, value in graph.initializers.items()}


def measure(checkpoint: Path, scratch: Path, precision: str, options: str, way: str) -> tuple[dict, dict[str, str]]:
    """One conversion in a child: its sample, and its tensors' digests."""
    out = scratch / "onnx"
    chosen = ",".join(filter(None, [options, "stock=true" if way == "stock" else ""]))
    code = f"from tests.benchmarks.conversion import convert_once as c; c({str(checkpoint)!r}, {str(out)!r}, "
    sample = watched(["-c", f"{code}{precision!r}, {chosen!r})"])
    found = {}
    if "failed" not in sample:
        sample["bytes"] = sum(file.stat().st_size for file in out.iterdir())
        found = digests(out)
        shutil.rmtree(out)
    return sample, found


def table(samples: list[dict]) -> str:
    """Medians, and the medians of the ratios of each repetition, in Markdown."""
    rows = ["| layers | way | wall s | peak RssAnon GiB | bytes written | stock / ours: time, memory |"]
    rows.append("| --- | --- | --- | --- | --- | --- |")
    for layers in sorted({sample["layers"] for sample in samples}):
        for way in ("stock", "ours"):
            own = [s for s in samples if s["layers"] == layers and s["way"] == way and "failed" not in s]
            if not own:
                continue
            middle = {
                name: statistics.median(s[name] for s in own) for name in ("wall_s", "peak_rss_anon_bytes", "bytes")
            }
            ratios = ""
            stock = [s for s in samples if s["layers"] == layers and s["way"] == "stock" and "failed" not in s]
            if way == "ours" and stock:
                by = [
                    statistics.median(a[name] / b[name] for a, b in zip(stock, own, strict=True))
                    for name in ("wall_s", "peak_rss_anon_bytes")
                ]
                ratios = f"{by[0]:.2f}, {by[1]:.1f}"
            rows.append(
                f"| {layers} | {way} | {middle['wall_s']:.0f} | {middle['peak_rss_anon_bytes'] / 2**30:.2f} | "
                f"{middle['bytes']:,.0f} | {ratios} |"
            )
    return "\n".join(rows)


def plot(samples: list[dict], path: Path) -> None:
    """Peak memory and time by layers."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "phi-mlflow", "svg.fonttype": "none", "font.size": 11})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for way, colour, label in (("stock", "#c2410c", "stock builder"), ("ours", "#0369a1", "this project")):
        own = [s for s in samples if s["way"] == way and "failed" not in s]
        layers = sorted({s["layers"] for s in own})
        for axis, name, unit in ((axes[0], "peak_rss_anon_bytes", 2**30), (axes[1], "wall_s", 1)):
            values = [statistics.median(s[name] for s in own if s["layers"] == count) / unit for count in layers]
            axis.plot(layers, values, "o-", color=colour, label=label)
            axis.annotate(f"{values[-1]:.1f}" if unit > 1 else f"{values[-1]:.0f} s", (layers[-1], values[-1]),
                          xytext=(0, 7), textcoords="offset points", ha="center", color=colour)  # fmt: skip
    for axis, title in ((axes[0], "Peak anonymous memory, GiB"), (axes[1], "Wall time, s")):
        axis.set_title(title, loc="left")
        axis.set_xlabel("layers of Phi-3-mini's geometry")
        axis.set_xticks(sorted({s["layers"] for s in samples}))
        axis.set_ylim(0, 1.15 * axis.get_ylim()[1])
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    figure.savefig(path, metadata={"Date": None}, facecolor="white")


def main() -> None:
    """Make each checkpoint, convert it in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--geometry", default="phi-3-mini")
    parser.add_argument("--layers", type=int, nargs="*", default=[4, 8, 12])
    parser.add_argument("--alone", type=int, nargs="*", default=[32])
    parser.add_argument("--precision", default="int4")
    parser.add_argument("--options", default="block_size=128")
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    samples: list[dict] = []
    for layers in [*args.layers, *args.alone]:
        ways = ("stock", "ours") if layers in args.layers else ("ours",)
        with tempfile.TemporaryDirectory() as scratch:
            checkpoint = Path(scratch) / "checkpoint"
            make = f"make_once({str(checkpoint)!r}, {args.geometry!r}, {layers})"
            watched(["-c", f"from tests.benchmarks.conversion import make_once; {make}"])
            for _ in range(args.reps):
                found = {}
                for way in ways:
                    sample, found[way] = measure(checkpoint, Path(scratch), args.precision, args.options, way)
                    samples.append({"layers": layers, "way": way} | sample)
                    print(samples[-1], file=sys.stderr)
                if len(ways) == 2 and found["stock"]:
                    samples[-1]["tensors"] = len(found["stock"])  # ours has three numbers more, for first_logit
                    samples[-1]["tensors_as_stock"] = sum(
                        found["ours"].get(name) == digest for name, digest in found["stock"].items()
                    )
        args.out.write_text(
            json.dumps(
                {
                    "geometry": args.geometry,
                    "precision": args.precision,
                    "options": args.options,
                    "environment": environment(*PACKAGES),
                    "samples": samples,
                },
                indent=1,
            )
            + "\n"
        )
    print(table(samples))
    compared = [sample for sample in samples if "tensors" in sample]
    same = sum(sample["tensors_as_stock"] for sample in compared)
    print(f"tensors with the stock builder's bytes: {same} of {sum(sample['tensors'] for sample in compared)}")
    if args.plot:
        plot(samples, args.plot)


if __name__ == "__main__":
    main()
