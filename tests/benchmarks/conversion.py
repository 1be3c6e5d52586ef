#!/usr/bin/env python3
"""Compare our streaming conversion with the stock model builder, on the same checkpoints of a published geometry.

The stock builder holds all weights in memory, so a 14B model does not fit on most machines. Streaming must need less
memory, write the same weights, and be no slower.

For each number of layers, both convert a checkpoint of random bfloat16 weights in turn, --reps times, each time in a
process of its own. For --alone layers only ours does, because the stock builder runs out of memory. Measured:
- the wall time of the process, and the seconds of the conversion alone
- peak RssAnon, the kernel's figure, every 10 ms
- the bytes written
- whether the SHA-256 of every tensor is the stock builder's

Output: OUT.json holds the raw samples and the environment. A Markdown table is printed. Progress goes to stderr.

Usage: python tests/benchmarks/conversion.py OUT.json [--geometry phi-3-mini] [--layers 4 8 12] [--alone 32]
           [--options block_size=128] [--precision int4] [--reps 3] [--plot OUT.svg]
       (inside the project's environment; 25 GB of disk)
       The smallest run: python tests/benchmarks/conversion.py /tmp/c.json --layers 1 --alone --reps 1
"""

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.benchmarks.conversion_report import Sample, plot, table  # noqa: E402
from tests.benchmarks.machine import environment, log, run_and_watch  # noqa: E402

PACKAGES = ("onnxruntime-genai", "onnxruntime", "onnx-ir", "torch", "transformers")


def convert_once(folder: str, out: str, precision: str, options: str) -> None:
    """Convert a checkpoint, and print the seconds that it took. Runs in the child process."""
    from steps.conversion.convert import convert
    from steps.conversion.options import parse_choice

    facts = convert(Path(folder), Path(out), parse_choice("genai", precision, options, "cpu"))
    print(json.dumps({"seconds": facts.seconds}))


def make_once(folder: str, geometry: str, layers: int) -> None:
    """Write a checkpoint with random weights. Runs in the child process."""
    from tests.checkpoints.geometries import PUBLISHED, make_checkpoint

    tiny = ROOT / "params" / "tiny-phi3"
    make_checkpoint(Path(folder), geometry, tiny, **PUBLISHED[geometry] | {"num_hidden_layers": layers})
    print("{}")


def call_in_child(function: str, *arguments: str | int) -> Sample:
    """Call a function of this file in a child process, and watch its memory."""
    call = f"{function}({', '.join(map(repr, arguments))})"
    return run_and_watch(["-c", f"from tests.benchmarks.conversion import {function}; {call}"])


def tensor_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each tensor of a converted folder. The tensors are read one at a time."""
    import onnx_ir

    weights = onnx_ir.load(folder / "model.onnx").graph.initializers
    return {
        name: hashlib.sha256(weight.const_value.tobytes()).hexdigest()
        for name, weight in weights.items()
        if weight.const_value is not None
    }


def measure(checkpoint: Path, out: Path, precision: str, options: str) -> tuple[Sample, dict[str, str]]:
    """Convert once in a child process. Return the sample, and the tensors' digests: none if the conversion failed."""
    sample = call_in_child("convert_once", str(checkpoint), str(out), precision, options)
    if "failed" in sample:
        return sample, {}
    sample["bytes"] = sum(file.stat().st_size for file in out.iterdir())
    digests = tensor_digests(out)
    shutil.rmtree(out)
    return sample, digests


def compare(args: argparse.Namespace, layers: int, scratch: Path) -> list[Sample]:
    """Return the samples of a checkpoint with a number of layers."""
    checkpoint = scratch / "checkpoint"
    call_in_child("make_once", str(checkpoint), args.geometry, layers)
    samples: list[Sample] = []
    for _ in range(args.reps):
        digests: dict[str, dict[str, str]] = {"stock": {}}
        for way in ("stock", "ours") if layers in args.layers else ("ours",):
            options = ",".join(filter(None, [args.options, "stock=true" if way == "stock" else ""]))
            sample, digests[way] = measure(checkpoint, scratch / "onnx", args.precision, options)
            samples.append({"layers": layers, "way": way} | sample)
            log(samples[-1])
        if digests["stock"]:  # ours has three more tensors, for first_logit
            same = [digests["ours"].get(name) == digest for name, digest in digests["stock"].items()]
            samples[-1] |= {"tensors": len(same), "tensors_as_stock": sum(same)}
    return samples


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--geometry", default="phi-3-mini")
    parser.add_argument("--layers", type=int, nargs="*", default=[4, 8, 12])
    parser.add_argument("--alone", type=int, nargs="*", default=[32])
    parser.add_argument("--precision", default="int4")
    parser.add_argument("--options", default="block_size=128")
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--plot", type=Path)
    return parser.parse_args()


def main() -> None:
    """Measure, write OUT.json after each number of layers, print the table."""
    args = parse_arguments()
    samples: list[Sample] = []
    about = {name: getattr(args, name) for name in ("geometry", "precision", "options")}
    for layers in [*args.layers, *args.alone]:
        with tempfile.TemporaryDirectory() as scratch:
            samples += compare(args, layers, Path(scratch))
        content = about | {"environment": environment(*PACKAGES), "samples": samples}
        args.out.write_text(json.dumps(content, indent=1) + "\n")
    print(table(samples))
    compared = [sample for sample in samples if "tensors" in sample]
    same, total = (sum(sample[name] for sample in compared) for name in ("tensors_as_stock", "tensors"))
    print(f"tensors with the stock builder's bytes: {same} of {total}")
    if args.plot:
        plot(samples, args.plot)


if __name__ == "__main__":
    main()
