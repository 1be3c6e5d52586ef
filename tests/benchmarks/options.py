#!/usr/bin/env python3
"""Measure with which options to convert Phi-3-mini for a CPU: speed at the real geometry, quality on trained models.

speed    Each variant of a checkpoint of Phi-3-mini's geometry (random weights) is loaded beside the baseline: int4 with
         block_size=32, the builder's default. Both are timed in turn, --reps times: a prefill of 128 tokens, then 32
         tokens decoded one by one. Printed are medians, and medians of the ratios to the baseline in the same
         repetition. A ratio above 1 is faster.
quality  Each variant of a trained checkpoint reads a text in windows of 256 tokens. Printed are, over the tokens: the
         KL divergence from float32, in nats; how often the most likely token is the same; and perplexity, exp(mean
         negative log likelihood), as in llama.cpp's tools/perplexity/README.md.

Output: OUT.json holds the samples (speed) or the statistics of each variant (quality), and the environment. A Markdown
table is printed. Progress goes to stderr.

Usage: python tests/benchmarks/options.py speed OUT.json [--layers 12] [--reps 7] [--variants 'int4 block_size=128' ...]
       python tests/benchmarks/options.py quality OUT.json [CHECKPOINT TEXT] [--tokens N] [--variants ...]
       (inside the project's environment)

Without CHECKPOINT, quality measures SmolLM2-135M-Instruct, which tests/checkpoints/real_checkpoint.py makes, on 4,096
tokens of params/texts/general.txt. It needs the package index. train_code_phi3.py makes another checkpoint and its
text. TEXT may be an evaluation set.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.benchmarks.machine import environment  # noqa: E402
from tests.benchmarks.options_quality import WINDOW, compare_variants, quality_table, read_windows  # noqa: E402
from tests.benchmarks.options_speed import DECODE, PREFILL, Variant, speed_table, time_variants  # noqa: E402
from tests.checkpoints.geometries import PUBLISHED, make_checkpoint  # noqa: E402
from tests.checkpoints.real_checkpoint import make_real_checkpoint  # noqa: E402

PACKAGES = ("onnxruntime-genai", "onnxruntime", "torch", "transformers")
BASELINE = Variant("int4", "block_size=32")
SPEED = (
    BASELINE,
    Variant("int4", "block_size=64"),
    Variant("int4", "block_size=128"),
    Variant("int4", "block_size=256"),
    Variant("int4", "block_size=128,is_symmetric=false"),  # k_quant's layout too
    Variant("int4", "block_size=32,is_symmetric=false"),
    Variant("int4", "block_size=128,matmul_mixed_precision=last_matmul:int8"),
    Variant("int4", "block_size=128,is_symmetric=false,matmul_mixed_precision=last_matmul:int8"),  # k_quant_last's
    Variant("int4", "block_size=128,is_symmetric=false,matmul_mixed_precision=last_matmul:int8,mixed_layers:int8"),
    Variant("int4", "block_size=128,accuracy_level=1"),
    Variant("int4", "block_size=128,prune_lm_head=true"),
    Variant("int8", "block_size=128"),
)
QUALITY = (
    Variant("fp32", ""),
    BASELINE,
    Variant("int4", "block_size=64"),
    Variant("int4", "block_size=128"),
    Variant("int4", "block_size=256"),
    Variant("int4", "block_size=32,is_symmetric=false"),
    Variant("int4", "block_size=128,is_symmetric=false"),
    Variant("int4", "block_size=128,algo_config=rtn"),
    Variant("int4", "block_size=32,algo_config=k_quant"),
    Variant("int4", "block_size=128,algo_config=k_quant"),
    Variant("int4", "block_size=128,matmul_mixed_precision=last_matmul:int8"),
    Variant("int4", "block_size=256,matmul_mixed_precision=last_matmul:int8"),
    Variant("int4", "block_size=128,algo_config=k_quant_last"),
    Variant("int4", "block_size=128,algo_config=k_quant_mixed"),
    Variant("int8", "block_size=128"),
)

REAL_QUALITY = (  # blocks of 32, because the hidden size is 576
    Variant("fp32", ""),
    Variant("int8", "block_size=32"),
    BASELINE,
    Variant("int4", "block_size=128"),
    Variant("int4", "block_size=32,is_symmetric=false"),
    Variant("int4", "block_size=32,algo_config=k_quant"),
    Variant("int4", "block_size=32,matmul_mixed_precision=last_matmul:int8"),
    Variant("int4", "block_size=32,algo_config=k_quant_last"),
    Variant("int4", "block_size=32,algo_config=k_quant_mixed"),
)


def parse_variant(text: str) -> Variant:
    """Parse a variant from the command line, such as "int4 block_size=128"."""
    precision, _, options = text.partition(" ")
    return Variant(precision, options)


def speed(args: argparse.Namespace, scratch: Path) -> tuple[dict[str, Any], str]:
    """Time the variants. Return the content of OUT.json, and the table."""
    fields = PUBLISHED["phi-3-mini"] | {"num_hidden_layers": args.layers}
    checkpoint = make_checkpoint(scratch / "checkpoint", "phi-3-mini", ROOT / "params" / "tiny-phi3", **fields)
    variants = (BASELINE, *args.variants) if args.variants else SPEED
    samples = time_variants(checkpoint, variants, args.reps, scratch)
    about = {"layers": args.layers, "prefill_tokens": PREFILL, "decode_tokens": DECODE}
    return about | {"samples": samples}, speed_table(samples)


def quality(args: argparse.Namespace, scratch: Path) -> tuple[dict[str, Any], str]:
    """Compare the variants with float32. Return the content of OUT.json, and the table."""
    checkpoint = args.checkpoint or make_real_checkpoint(scratch / "checkpoint")
    text, tokens = (args.text, 16384) if args.text else (ROOT / "params/texts/general.txt", 4096)
    windows = read_windows(checkpoint, text, args.tokens or tokens)
    variants = args.variants or (QUALITY if args.checkpoint else REAL_QUALITY)
    results = compare_variants(checkpoint, windows, variants, scratch)
    return {"window": WINDOW, "samples": results}, quality_table(results)


def parse_arguments() -> argparse.Namespace:
    """Parse the command line. `measure` is the function of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for measure in (speed, quality):
        command = commands.add_parser(measure.__name__)
        command.set_defaults(measure=measure)
        command.add_argument("out", type=Path)
        command.add_argument("--variants", nargs="*", type=parse_variant, help="such as 'int4 block_size=128'")
        if measure is speed:
            command.add_argument("--layers", type=int, default=12)
            command.add_argument("--reps", type=int, default=7)
        else:
            command.add_argument("checkpoint", type=Path, nargs="?")
            command.add_argument("text", type=Path, nargs="?")
            command.add_argument("--tokens", type=int, help="default: 4096 of general.txt, 16384 of TEXT")
    args = parser.parse_args()
    if args.measure is quality and args.checkpoint and not args.text:
        parser.error("CHECKPOINT needs TEXT")
    return args


def main() -> None:
    """Measure, write OUT.json, print the table."""
    args = parse_arguments()
    with tempfile.TemporaryDirectory() as scratch:
        content, table = args.measure(args, Path(scratch))
    content = {"environment": environment(*PACKAGES)} | content
    args.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
