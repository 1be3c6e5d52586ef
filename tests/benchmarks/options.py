#!/usr/bin/env python3
"""Which options to convert Phi-3-mini with, on a CPU: speed at the real geometry, quality on trained models.

speed    Each variant of a checkpoint of Phi-3-mini's geometry (random weights) is loaded beside the baseline (int4 as
         the builder makes it: block_size=32), and both are timed in turn, --reps times: a prefill of 128 tokens, and 32
         tokens decoded one by one after it (given, not sampled, so that no end-of-text cuts the run short). Printed are
         medians, and medians of the ratios to the baseline in the same repetition. Above 1 is faster.
quality  Each variant of a trained checkpoint reads a held-out text in windows of 256 tokens. Per token: the KL
         divergence of its distribution from float32's, in nats, and whether the most likely token is the same;
         perplexity as exp(mean negative log likelihood), as in llama.cpp's tools/perplexity/README.md.

Usage: python tests/benchmarks/options.py speed OUT.json [--layers 12] [--reps 7] [--variants ...]
       python tests/benchmarks/options.py quality OUT.json CHECKPOINT TEXT [--tokens 16384]
       (inside the project's environment; train_code_phi3.py makes a checkpoint and a text; an evaluation set will do)

OUT.json holds the raw samples and the environment; a Markdown table is printed.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

from steps.chat.runtime.cpus import usable_cpus  # noqa: E402
from steps.conversion.convert import convert  # noqa: E402
from steps.conversion.options import parse_choice  # noqa: E402
from tests.benchmarks.machine import environment  # noqa: E402
from tests.checkpoints.geometries import PUBLISHED, make_checkpoint  # noqa: E402

PACKAGES = ("onnxruntime-genai", "onnxruntime", "torch", "transformers")
BASELINE = ("int4", "block_size=32")
PREFILL, DECODE, WINDOW = 128, 32, 256
SPEED = [
    BASELINE,
    ("int4", "block_size=64"),
    ("int4", "block_size=128"),
    ("int4", "block_size=256"),
    ("int4", "block_size=128,is_symmetric=false"),  # k_quant's layout too
    ("int4", "block_size=32,is_symmetric=false"),
    ("int4", "block_size=128,matmul_mixed_precision=last_matmul:int8"),
    ("int4", "block_size=128,is_symmetric=false,matmul_mixed_precision=last_matmul:int8"),  # k_quant_last's layout
    ("int4", "block_size=128,is_symmetric=false,matmul_mixed_precision=last_matmul:int8,mixed_layers:int8"),
    ("int4", "block_size=128,accuracy_level=1"),
    ("int4", "block_size=128,prune_lm_head=true"),
    ("int8", "block_size=128"),
]
QUALITY = [
    BASELINE,
    ("int4", "block_size=64"),
    ("int4", "block_size=128"),
    ("int4", "block_size=256"),
    ("int4", "block_size=32,is_symmetric=false"),
    ("int4", "block_size=128,is_symmetric=false"),
    ("int4", "block_size=128,algo_config=rtn"),
    ("int4", "block_size=32,algo_config=k_quant"),
    ("int4", "block_size=128,algo_config=k_quant"),
    ("int4", "block_size=128,matmul_mixed_precision=last_matmul:int8"),
    ("int4", "block_size=256,matmul_mixed_precision=last_matmul:int8"),
    ("int4", "block_size=128,algo_config=k_quant_last"),
    ("int4", "block_size=128,algo_config=k_quant_mixed"),
    ("int8", "block_size=128"),
]


def load(folder: Path):
    """The converted model, on as many threads as there are usable CPUs."""
    import onnxruntime_genai as og

    config = og.Config(str(folder))
    options = {"session_options": {"intra_op_num_threads": usable_cpus()}}
    config.overlay(json.dumps({"model": {"decoder": options}}))
    return og.Model(config)


def generator(model, length: int):
    """A greedy generator for `length` tokens."""
    import onnxruntime_genai as og

    params = og.GeneratorParams(model)
    params.set_search_options(max_length=length, do_sample=False)
    return og.Generator(model, params)


def timed(run, tokens: list[int]) -> tuple[float, float]:
    """(prefill, decode) of a generator, tokens a second."""
    run.rewind_to(0)
    start = time.perf_counter()
    run.append_tokens(tokens[:PREFILL])
    run.get_logits()
    middle = time.perf_counter()
    for token in tokens[PREFILL : PREFILL + DECODE]:
        run.append_tokens([token])
        run.get_logits()
    return PREFILL / (middle - start), DECODE / (time.perf_counter() - middle)


def speed(layers: int, reps: int, variants: list[tuple[str, str]], scratch: Path) -> list[dict]:
    """Samples of every variant beside the baseline."""
    fields = PUBLISHED["phi-3-mini"] | {"num_hidden_layers": layers}
    checkpoint = make_checkpoint(scratch / "checkpoint", "phi-3-mini", ROOT / "params" / "tiny-phi3", **fields)
    tokens = np.random.default_rng(0).integers(10, 32000, PREFILL + DECODE).tolist()
    samples, baseline = [], None
    for number, (precision, options) in enumerate(variants):
        out = scratch / f"onnx-{number}"
        seconds = convert(checkpoint, out, parse_choice("genai", precision, options, "cpu")).seconds
        size = sum(file.stat().st_size for file in out.iterdir())
        model = load(out)
        run = generator(model, PREFILL + DECODE + 1)
        baseline = baseline or run
        for timing in (run, baseline):
            timed(timing, tokens)
        for _ in range(reps):
            pair = [timed(baseline, tokens), timed(run, tokens)]
            samples.append(
                {"precision": precision, "options": options, "bytes": size, "convert_s": seconds}
                | {"prefill": pair[1][0], "decode": pair[1][1]}
                | {"baseline_prefill": pair[0][0], "baseline_decode": pair[0][1]}
            )
        print(samples[-1], file=sys.stderr)
        del model, run
    return samples


def speed_table(samples: list[dict]) -> str:
    """Medians in Markdown."""
    rows = ["| precision, options | size GB | prefill tok/s | decode tok/s | prefill ratio | decode ratio |"]
    rows.append("| --- | --- | --- | --- | --- | --- |")
    for precision, options in dict.fromkeys((sample["precision"], sample["options"]) for sample in samples):
        own = [s for s in samples if (s["precision"], s["options"]) == (precision, options)]
        prefill, decode = (statistics.median(s[name] for s in own) for name in ("prefill", "decode"))
        ratios = [statistics.median(s[name] / s[f"baseline_{name}"] for s in own) for name in ("prefill", "decode")]
        rows.append(
            f"| {precision} {options} | {own[0]['bytes'] / 1e9:.2f} | {prefill:.0f} | {decode:.1f} | "
            f"{ratios[0]:.2f} | {ratios[1]:.2f} |"
        )
    return "\n".join(rows)


def log_probabilities(folder: Path, windows: list[tuple[list[int], int]]):
    """Log probabilities [tokens, vocabulary] of each window, by the runtime."""
    run = generator(load(folder), WINDOW + 1)
    for window, _ in windows:
        run.rewind_to(0)
        run.append_tokens(window)
        logits = run.get_output("logits")[0].astype(np.float64)
        logits -= logits.max(-1, keepdims=True)
        yield logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def quality(checkpoint: Path, text: Path, count: int, scratch: Path) -> list[dict]:
    """Fidelity of every variant to float32 on a text."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    if text.suffix == ".jsonl":  # an evaluation set: a conversation a window, of which the answer counts
        windows = []
        for line in text.read_text(encoding="utf-8").splitlines():
            case = json.loads(line)
            asked = tokenizer.apply_chat_template(case["messages"], add_generation_prompt=True)
            answer = tokenizer(case["expected"], add_special_tokens=False)["input_ids"]
            windows.append((asked + answer, len(asked) - 1))
    else:
        ids = tokenizer(text.read_text(encoding="utf-8"), verbose=False)["input_ids"]
        stride = max(1, len(ids) // (count // WINDOW))  # spread over the text
        starts = range(0, len(ids) - WINDOW, stride)[: count // WINDOW]
        windows = [(ids[i : i + WINDOW], 0) for i in starts]
    convert(checkpoint, scratch / "fp32", parse_choice("genai", "fp32", "", "cpu"))
    reference = list(log_probabilities(scratch / "fp32", windows))
    results = []
    for number, (precision, options) in enumerate([("fp32", ""), *QUALITY]):
        out = scratch / f"onnx-{number}"
        try:
            convert(checkpoint, out, parse_choice("genai", precision, options, "cpu"))
        except Exception as error:  # a geometry that the algorithm cannot quantise
            print(f"{precision} {options}: {error}", file=sys.stderr)
            continue
        divergence, same, likelihood = [], [], []
        for (window, first), expected, found in zip(windows, reference, log_probabilities(out, windows), strict=True):
            counted = slice(first, -1)  # what predicts a token of the window
            divergence.append((np.exp(expected) * (expected - found)).sum(-1)[counted])
            same.append((expected.argmax(-1) == found.argmax(-1))[counted])
            likelihood.append(-found[np.arange(first, len(window) - 1), window[first + 1 :]])
        divergence, same = np.concatenate(divergence), np.concatenate(same)
        results.append(
            {
                "precision": precision,
                "options": options,
                "bytes": (out / "model.onnx.data").stat().st_size,
                "tokens": len(divergence),
                "kl_mean": float(divergence.mean()),
                "kl_standard_error": float(divergence.std(ddof=1) / len(divergence) ** 0.5),
                "kl_99": float(np.quantile(divergence, 0.99)),
                "same_top": float(same.mean()),
                "perplexity": float(np.exp(np.concatenate(likelihood).mean())),
            }
        )
        print(results[-1], file=sys.stderr)
    return results


def quality_table(results: list[dict]) -> str:
    """In Markdown."""
    rows = [
        "| precision, options | mean KL, 1e-3 nats | 99% KL | same top token | perplexity |",
        "| --- |" + " --- |" * 4,
    ]
    for r in results:
        rows.append(
            f"| {r['precision']} {r['options']} | {1e3 * r['kl_mean']:.2f} ± {1e3 * r['kl_standard_error']:.2f} | "
            f"{r['kl_99']:.3f} | {r['same_top']:.1%} | {r['perplexity']:.3f} |"
        )
    return "\n".join(rows)


def main() -> None:
    """Measure, keep, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    fast = commands.add_parser("speed")
    fast.add_argument("out", type=Path)
    fast.add_argument("--layers", type=int, default=12)
    fast.add_argument("--reps", type=int, default=7)
    fast.add_argument(
        "--variants", nargs="*", help="such as 'int4 block_size=128'; without, all; the baseline is first"
    )
    good = commands.add_parser("quality")
    good.add_argument("out", type=Path)
    good.add_argument("checkpoint", type=Path)
    good.add_argument("text", type=Path)
    good.add_argument("--tokens", type=int, default=16384)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if args.command == "speed":
            named = [tuple(text.partition(" ")[::2]) for text in args.variants or ()]
            found = speed(args.layers, args.reps, [BASELINE, *named] if named else SPEED, Path(scratch))
            about = {"layers": args.layers, "prefill_tokens": PREFILL, "decode_tokens": DECODE}
        else:
            found = quality(args.checkpoint, args.text, args.tokens, Path(scratch))
            about = {"window": WINDOW}
    content = about | {"environment": environment(*PACKAGES), "samples": found}
    args.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(speed_table(found) if args.command == "speed" else quality_table(found))


if __name__ == "__main__":
    main()
