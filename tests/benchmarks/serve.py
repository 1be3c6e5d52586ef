#!/usr/bin/env python3
"""Measure the server `serve`: against its own engine, against its peers, and against clients that behave badly.

Parts:

engine       8 streaming clients over HTTP, against 8 callers of the engine in process.
first_token  What HTTP adds to the time to the first token of a single request.
llama        llama.cpp's server with the same weights in Q4_0, at 1, 4, 8 and 16 clients, which begin at random times.
recipe       `mlflow models serve` with the usual recipe's wrapper, at 8 clients.
abuse        --requests requests to the shipped model in float32: good ones whose answers are known, malformed ones, and
             ones whose client goes away, also by kill -9.

The models are 12 layers of Phi-3-mini's geometry with random weights, and with --real a small checkpoint that speaks
English. MODELS is a folder where they are made, and kept for the next run: 5 GB.

Output: OUT.json holds the raw samples of each part, and the environment. A Markdown table is printed. Progress goes to
stderr.

Usage: python tests/benchmarks/serve.py OUT.json MODELS [--real CHECKPOINT] [--llama FOLDER] [--parts engine abuse ...]
       The smallest run: python tests/benchmarks/serve.py /tmp/serve.json /tmp/models --parts abuse --requests 500
       (Inside the project's environment. FOLDER has llama.cpp's llama-server and llama-quantize. The package gguf, or
       llama.cpp's folder gguf-py on PYTHONPATH, is needed when the models are made.)
"""

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.benchmarks.chat_models import convert_checkpoint, save_model  # noqa: E402
from tests.benchmarks.machine import environment, log  # noqa: E402
from tests.benchmarks.serve_abuse import measure_abuse  # noqa: E402
from tests.benchmarks.serve_models import TINY, make_models, random_checkpoint  # noqa: E402
from tests.benchmarks.serve_speed import Bench, Prompts, SpeedSample, Work  # noqa: E402
from tests.benchmarks.serve_table import table  # noqa: E402

PACKAGES = ("onnxruntime", "onnxruntime-genai", "mlflow", "numpy", "fastapi", "uvicorn", "sse-starlette")
PARTS = ("engine", "first_token", "llama", "recipe", "abuse")
_RANDOM, _REAL = "Phi-3-mini's geometry", "real"
_PROMPT, _NEW = 64, {_RANDOM: 64, _REAL: 128}  # tokens


@dataclass(frozen=True)
class Arguments:
    """The command line."""

    out: Path
    models: Path
    layers: int
    real: Path | None
    llama: Path | None
    parts: list[str]
    clients: list[int]
    reps: int
    new: int
    requests: int


def parse_arguments() -> Arguments:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("models", type=Path)
    parser.add_argument("--layers", type=int, default=12, help="of Phi-3-mini's geometry; 0: leave it out")
    parser.add_argument("--real", type=Path, help="a checkpoint that speaks English")
    parser.add_argument("--llama", type=Path, help="the folder of llama.cpp's programs; without it, no part llama")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--clients", nargs="*", type=int, default=[1, 4, 8, 16], help="of the part llama")
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--new", type=int, default=0, help="tokens of an answer; 0: 64 of random weights, 128 else")
    parser.add_argument("--requests", type=int, default=10_000, help="of the part abuse")
    return Arguments(**vars(parser.parse_args()))


def benches(arguments: Arguments) -> Iterator[Bench]:
    """Yield what to measure of each kind of weights, and make the models that are not there yet."""
    phi = "block_size=128,matmul_mixed_precision=last_matmul:int8"  # as in Phi-3's profiles
    kinds = [(_REAL, arguments.real, "block_size=32")] if arguments.real else []
    if arguments.layers:
        kinds.append((_RANDOM, random_checkpoint(arguments.layers, arguments.models / "random" / "checkpoint"), phi))
    for name, checkpoint, options in kinds:
        folder = arguments.models / ("real" if name == _REAL else "random")
        models = make_models(checkpoint, folder, options, arguments.llama, "recipe" in arguments.parts)
        work = Work(_PROMPT, arguments.new or _NEW[name], arguments.reps)
        yield Bench(name, models, Prompts(models, name == _REAL, _PROMPT), work)


def measure_speed(bench: Bench, arguments: Arguments) -> Iterator[SpeedSample]:
    """Yield the samples of the parts that are asked for."""
    if "engine" in arguments.parts:
        yield from bench.against_engine()
    if "first_token" in arguments.parts:
        yield from bench.first_token()
    if "llama" in arguments.parts and arguments.llama:
        yield from bench.against_llama(arguments.llama, arguments.clients)
    if "recipe" in arguments.parts:
        yield from bench.against_recipe()


def tiny_model(folder: Path) -> Path:
    """Return the MLflow model of the shipped checkpoint in float32. Make it if it is not there."""
    model = folder / "mlflow"
    if not model.is_dir():
        log("converting the shipped checkpoint")
        folder.mkdir(parents=True, exist_ok=True)
        save_model(convert_checkpoint(TINY, folder / "onnx", "", "fp32"), model, "llm/v1/chat")
    return model


def llama_version(programs: Path) -> str:
    """Return what llama.cpp's server says of itself."""
    done = subprocess.run([programs / "llama-server", "--version"], capture_output=True, text=True, check=True)
    return (done.stdout + done.stderr).strip()


def main() -> None:
    """Measure, write OUT.json after each part, print the table."""
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers end, too
    speed: list[SpeedSample] = []
    content: dict[str, Any] = {"environment": environment(*PACKAGES), "prompt": _PROMPT, "speed": speed}
    if arguments.llama:
        content["llama"] = llama_version(arguments.llama)

    def write() -> None:
        arguments.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    if set(arguments.parts) - {"abuse"}:
        for bench in benches(arguments):
            for sample in measure_speed(bench, arguments):
                speed.append(sample)
                write()
    if "abuse" in arguments.parts:
        content["abuse"] = measure_abuse(tiny_model(arguments.models / "tiny"), arguments.requests)
    write()
    print(table(content))


if __name__ == "__main__":
    main()
