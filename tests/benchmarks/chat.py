#!/usr/bin/env python3
"""Measure the custom model as a chat engine: against the bare runtime, its peers and the usual recipe, and itself.

The question is whether a model of this project is as fast as its runtime allows, and what serving many callers gains.
Parts:

single   One request at a time: prefill of --prompt tokens, decode of --new tokens. In turn: this project's model
         through pyfunc.predict, the runtime's own loop on the same folder, and the usual recipe (block_size=32, default
         threads). With --llama and --openvino also llama.cpp and OpenVINO on the same weights. Decode is compared with
         the bandwidth of memory too, measured beside it.
rows     16 prompts of 13 tokens, 128 new tokens each: one DataFrame against 16 requests.
clients  8 requests of 64 tokens, 128 new tokens each: from 8 clients at random times against one after the other.
turns    The time to the first token of a conversation's fifth turn, after 1,000 tokens: in the prompt cache or unseen.
steady   Resident memory over --requests requests to the shipped model.
extras   What the check of the files costs when a model loads, and what the switch for traces costs a request.

Output: OUT.json holds the raw samples of each part, and the environment. A Markdown table is printed. Progress goes to
stderr.

Usage: python tests/benchmarks/chat.py OUT.json [--layers 12] [--reps 5] [--parts single rows ...]
           [--llama PYTHON FILE.gguf] [--openvino PYTHON FOLDER] [--checkpoint FOLDER]
       The smallest run: python tests/benchmarks/chat.py /tmp/chat.json --checkpoint params/tiny-phi3 --reps 1
       (Inside the project's environment. The peers' Python and files are made beforehand: a Q4_0 GGUF by llama.cpp's
       own quantiser, and `optimum-cli export openvino --weight-format int4 --group-size 128 --sym`.)
"""

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from steps.chat.batching.engine import Engine  # noqa: E402
from steps.chat.settings import Settings  # noqa: E402
from tests.benchmarks.chat_load import (  # noqa: E402
    ClientsSample,
    TurnsSample,
    memory_over_requests,
    time_clients,
    time_rows,
    time_turns,
)
from tests.benchmarks.chat_models import ConvertedModel, convert_checkpoint, save_model  # noqa: E402
from tests.benchmarks.chat_overhead import time_loads, time_requests  # noqa: E402
from tests.benchmarks.chat_single import RECIPE, THIS_PROJECT, time_engines, weight_bytes_per_token  # noqa: E402
from tests.benchmarks.chat_table import table  # noqa: E402
from tests.benchmarks.machine import environment, log  # noqa: E402
from tests.checkpoints.geometries import PUBLISHED, make_checkpoint  # noqa: E402

PACKAGES = ("onnxruntime", "onnxruntime-genai", "mlflow", "numpy")
TINY = ROOT / "params" / "tiny-phi3"
PARTS = ("single", "rows", "clients", "turns", "steady", "extras")
_MOST_REPS = 3  # of the parts that take minutes for each repetition


@dataclass(frozen=True)
class Arguments:
    """The command line."""

    out: Path
    layers: int
    checkpoint: Path | None
    options: str
    parts: list[str]
    reps: int
    prompt: int
    new: int
    chunk: int
    requests: int
    llama: list[str] | None
    openvino: list[str] | None


def parse_arguments() -> Arguments:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", type=int, default=12, help="of Phi-3-mini's geometry, with random weights")
    parser.add_argument("--checkpoint", type=Path, help="convert this checkpoint instead of one with random weights")
    parser.add_argument(
        "--options", default="block_size=128,matmul_mixed_precision=last_matmul:int8", help="as in Phi-3's profiles"
    )
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--reps", type=int, default=5, help=f"at most {_MOST_REPS} for rows, clients and turns")
    parser.add_argument("--prompt", type=int, default=128, help="tokens")
    parser.add_argument("--new", type=int, default=64, help="tokens")
    parser.add_argument("--chunk", type=int, default=Settings.prefill_chunk, help="the engine's setting prefill_chunk")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--llama", nargs=2, metavar=("PYTHON", "GGUF"))
    parser.add_argument("--openvino", nargs=2, metavar=("PYTHON", "FOLDER"))
    return Arguments(**vars(parser.parse_args()))


def measure(arguments: Arguments, scratch: Path) -> dict[str, Any]:
    """Return the samples of each part that is asked for.

    Args:
        scratch: an empty folder for checkpoints and models.
    """
    parts = set(arguments.parts)
    samples: dict[str, Any] = {}
    if "steady" in parts:  # first, while this process holds no other model
        tiny = convert_checkpoint(TINY, scratch / "tiny", "")
        samples["steady"] = memory_over_requests(tiny.folder, arguments.requests)
    if parts == {"steady"}:
        return samples
    checkpoint = arguments.checkpoint or make_random_checkpoint(arguments.layers, scratch)
    log("converting")
    model = convert_checkpoint(checkpoint, scratch / "onnx", arguments.options)
    if "single" in parts:
        engines = engines_to_compare(arguments, checkpoint, model, scratch)
        samples["single"] = time_engines(engines, arguments.reps, arguments.prompt, arguments.new)
        samples["read_per_token"] = weight_bytes_per_token(model.folder)
    if "rows" in parts:
        completions = save_model(model, scratch / "completions", "llm/v1/completions")
        samples["rows"] = time_rows(completions, min(arguments.reps, _MOST_REPS))
    if "extras" in parts:
        tiny = convert_checkpoint(TINY, scratch / "tiny-extras", "")
        samples["extras"] = {"loads": time_loads(model, arguments.reps), "requests": time_requests(tiny)}
    return samples | measure_engine(arguments, model.folder)


def measure_engine(arguments: Arguments, folder: Path) -> dict[str, list[ClientsSample] | list[TurnsSample]]:
    """Return the samples of the parts clients and turns, where they are asked for. One engine answers both."""
    samples: dict[str, list[ClientsSample] | list[TurnsSample]] = {}
    if not {"clients", "turns"} & set(arguments.parts):
        return samples
    engine, reps = Engine(folder, Settings(prefill_chunk=arguments.chunk)), min(arguments.reps, _MOST_REPS)
    if "clients" in arguments.parts:
        samples["clients"] = time_clients(engine, reps)
    if "turns" in arguments.parts:
        samples["turns"] = time_turns(engine, reps)
    engine.close()
    return samples


def make_random_checkpoint(layers: int, scratch: Path) -> Path:
    """Write a checkpoint of Phi-3-mini's geometry with random weights. Return its folder."""
    fields = PUBLISHED["phi-3-mini"] | {"num_hidden_layers": layers}
    return make_checkpoint(scratch / "checkpoint", "phi-3-mini", TINY, **fields)


def engines_to_compare(
    arguments: Arguments, checkpoint: Path, model: ConvertedModel, scratch: Path
) -> dict[str, tuple[str, str, Path]]:
    """Return name -> (Python, kind, path) of the engines, as chat_single.time_engines takes them."""
    logged = save_model(model, scratch / "model", "llm/v1/chat")
    recipe = convert_checkpoint(checkpoint, scratch / "recipe", "block_size=32")
    engines = {
        THIS_PROJECT: (sys.executable, "model", logged),
        "bare runtime": (sys.executable, "bare", model.folder),
        RECIPE: (sys.executable, "recipe", recipe.folder),
    }
    if arguments.llama:
        engines["llama.cpp Q4_0"] = (arguments.llama[0], "llama", Path(arguments.llama[1]))
    if arguments.openvino:
        engines["OpenVINO int4"] = (arguments.openvino[0], "openvino", Path(arguments.openvino[1]))
    return engines


def main() -> None:
    """Measure, write OUT.json, print the table."""
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as scratch:
        samples = measure(arguments, Path(scratch))
    about = {name: getattr(arguments, name) for name in ("layers", "options", "prompt", "new")}
    content = about | {"environment": environment(*PACKAGES)} | samples
    arguments.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(table(samples))


if __name__ == "__main__":
    main()
