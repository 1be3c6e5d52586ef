#!/usr/bin/env python3
"""The custom model as a chat engine: against the bare runtime, its peers and the usual recipe, and against itself.

single   prefill of --prompt tokens and decode of --new, one request at a time: this project's model through
         pyfunc.predict, the runtime's own loop on the same folder, the usual recipe (block_size=32, default threads),
         and, where given, llama.cpp and OpenVINO on the same weights. All are loaded, each in a process of its own, and
         timed in turn; ratios are of the same repetition. And this project's decode against the bandwidth of a plain
         read of memory, measured beside it, divided by the bytes that a token reads: the weights but for the embedding.
rows     16 prompts of 13 tokens, 128 new ones each: one DataFrame against 16 requests, in this project's model.
clients  8 clients that each ask once, 64 tokens, 128 new, at random times (exponential gaps, in the mean 1.5 prefills),
         against the same requests one after the other: tokens a second, and p95 of the time to the first token against
         one prefill alone.
turns    time to the first token of a conversation's fifth turn after 1,000 tokens of history, against the same without
         what was kept.
steady   resident memory over --requests requests to the shipped model.
extras   what loading takes with the checksums compared beside it and without; and what a request of one token to the
         shipped model takes with the switch for traces, off, and without it.

Usage: python tests/benchmarks/chat.py OUT.json [--layers 12] [--reps 5] [--parts single rows ...]
           [--llama PYTHON FILE.gguf] [--openvino PYTHON FOLDER] [--checkpoint FOLDER]
       (inside the project's environment; the peers' Python and files are made beforehand: a Q4_0 GGUF by llama.cpp's
       own quantiser, and `optimum-cli export openvino --weight-format int4 --group-size 128 --sym`)

OUT.json holds the raw samples and the environment; a Markdown table is printed.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from steps.chat.api.requests import Sampling  # noqa: E402
from steps.chat.batching.engine import Engine  # noqa: E402
from steps.chat.runtime.cpus import usable_cpus  # noqa: E402
from steps.chat.settings import Settings  # noqa: E402
from steps.conversion.convert import convert  # noqa: E402
from steps.conversion.options import parse_choice  # noqa: E402
from steps.conversion.record import Conversion  # noqa: E402
from steps.wrap_custom import model_arguments  # noqa: E402
from tests.benchmarks.machine import environment  # noqa: E402
from tests.checkpoints.geometries import PUBLISHED, make_checkpoint  # noqa: E402
from tests.conversion.records import conversion_of  # noqa: E402

PACKAGES = ("onnxruntime", "onnxruntime-genai", "mlflow", "numpy")
TINY = ROOT / "params" / "tiny-phi3"
OPTIONS = "block_size=128,matmul_mixed_precision=last_matmul:int8"  # the profiles'
PARTS = ("single", "rows", "clients", "turns", "steady", "extras")


def log(text: str) -> None:
    """To stderr, as it goes."""
    print(text, file=sys.stderr, flush=True)


def converted(checkpoint: Path, out: Path, options: str) -> Conversion:
    """Convert a checkpoint, and return the record of the conversion."""
    choice = parse_choice("genai", "int4", options, "cpu")
    facts = convert(checkpoint, out, choice)
    return conversion_of(out, **vars(choice), **vars(facts))


def saved(folder: Path, conversion: Conversion, target: Path, task: str) -> Path:
    """An MLflow model of a converted folder, as wrap_custom logs it."""
    import mlflow

    arguments = model_arguments(folder, conversion, task, folder.parent)
    mlflow.pyfunc.save_model(target, **{k: v for k, v in arguments.items() if k != "input_example"})
    return target


@contextmanager
def engine_process(python: str, kind: str, path: Path) -> Iterator:
    """A process of chat_engines.py; calling it times one repetition."""
    process = subprocess.Popen(
        [python, str(ROOT / "tests" / "benchmarks" / "chat_engines.py"), kind, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    if not process.stdout.readline():
        raise RuntimeError(f"{kind} did not start: python tests/benchmarks/chat_engines.py {kind} {path}")

    def timed(rep: int, prompt: int, new: int) -> dict:
        process.stdin.write(json.dumps({"rep": rep, "prompt": prompt, "new": new}) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    yield timed
    process.stdin.close()
    process.wait()


def single(engines: dict[str, tuple[str, str, Path]], reps: int, prompt: int, new: int) -> list[dict]:
    """Samples of every engine in turn; the first repetition warms up."""
    samples = []
    with ExitStack() as stack:
        running = {name: stack.enter_context(engine_process(*where)) for name, where in engines.items()}
        for rep in range(reps + 1):
            for name, timed in running.items():
                sample = {"engine": name, "rep": rep, "prompt": prompt} | timed(rep, prompt, new)
                if name == "this project":
                    sample["bandwidth"] = bandwidth()
                log(str(sample))
                samples += [sample] if rep else []
    return samples


def bandwidth() -> float:
    """Bytes a second of reading 1 GiB five times, by as many threads as there are usable CPUs."""
    block = np.ones(1 << 27, np.float64)
    parts = np.array_split(block, usable_cpus())
    start = time.perf_counter()
    for _ in range(5):
        threads = [threading.Thread(target=np.sum, args=(part,)) for part in parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return 5 * block.nbytes / (time.perf_counter() - start)


def read_per_token(folder: Path) -> int:
    """Bytes of the weights that one decode step reads: all but the embedding, of which it reads a row."""
    import onnx_ir

    values = onnx_ir.load(folder / "model.onnx").graph.initializers.values()
    return sum(value.const_value.nbytes for value in values if "embed_tokens" not in value.name)


def random_prompt(seed: int, count: int) -> list[int]:
    """A prompt that nobody asked before."""
    return [int(token) for token in np.random.default_rng(seed).integers(10, 700, count)]


def rows(model: Path, reps: int) -> list[dict]:
    """16 rows of a DataFrame against 16 requests."""
    import mlflow
    import pandas as pd

    loaded = mlflow.pyfunc.load_model(str(model))
    samples = []
    for rep in range(reps):
        sample = {}
        for way in ("requests", "rows"):
            texts = [f"{rep}{way[1]}{n:02} abcdefg hijk" for n in range(16)]
            start = time.perf_counter()
            if way == "rows":
                done = loaded.predict(pd.DataFrame({"prompt": texts}), params={"max_tokens": 128})
            else:
                parts = [loaded.predict(pd.DataFrame({"prompt": [text]}), params={"max_tokens": 128}) for text in texts]
                done = pd.concat(parts)
            sample[way] = {"seconds": time.perf_counter() - start, "tokens": int(done["completion_tokens"].sum())}
            sample[way]["prompt_tokens"] = int(done["prompt_tokens"].sum())
        samples.append(sample)
        log(str(sample))
    return samples


def clients(engine: Engine, reps: int) -> list[dict]:
    """8 clients at random times, against one after the other."""
    samples = []
    for rep in range(reps):
        start = time.perf_counter()
        solo = [engine.submit(random_prompt(100 * rep + n, 64), Sampling(128)).wait() for n in range(8)]
        sequential = time.perf_counter() - start
        prefill = statistics.median(done.first_token_s for done in solo)
        gaps = random.Random(rep)
        done: list = [None] * 8

        def client(number: int, delay: float, out: list = done, rep: int = rep) -> None:
            time.sleep(delay)
            out[number] = engine.submit(random_prompt(100 * rep + 50 + number, 64), Sampling(128)).wait()

        delay, threads = 0.0, []
        for number in range(8):
            threads.append(threading.Thread(target=client, args=(number, delay)))
            delay += gaps.expovariate(1 / (1.5 * prefill))
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        together = time.perf_counter() - start
        samples.append(
            {
                "prefill_s": prefill,
                "sequential": sum(d.completion_tokens for d in solo) / sequential,
                "together": sum(d.completion_tokens for d in done) / together,
                "first_token_s": [d.first_token_s for d in done],
            }
        )
        log(str(samples[-1]))
    return samples


def turns(engine: Engine, reps: int) -> list[dict]:
    """The fifth turn of a conversation with 1,000 tokens of history, kept and not."""
    samples = []
    for rep in range(reps):
        history = random_prompt(10_000 + rep, 1000)
        for turn in range(1, 5):  # each turn appends 30 tokens of a question and what was answered
            answer = engine.submit(history[: 250 * turn], Sampling(2))
            answer.wait()
        kept = engine.submit([*history, *random_prompt(20_000 + rep, 30)], Sampling(1)).wait()
        other = random_prompt(30_000 + rep, 1030)
        fresh = engine.submit(other, Sampling(1)).wait()
        samples.append({"kept_s": kept.first_token_s, "fresh_s": fresh.first_token_s, "reused": kept.reused_tokens})
        log(str(samples[-1]))
    return samples


def steady(scratch: Path, requests: int) -> list[dict]:
    """Resident memory every 500 requests, four callers at a time, prompts of 20 to 400 tokens."""
    import psutil

    converted(TINY, scratch / "tiny", "")
    engine, found = Engine(scratch / "tiny"), []
    process, generator = psutil.Process(), random.Random(0)

    def caller(count: int) -> None:
        for _ in range(count):
            prompt = [generator.randrange(10, 700) for _ in range(generator.randrange(20, 400))]
            engine.submit(prompt, Sampling(16)).wait()

    for done in range(500, requests + 1, 500):
        threads = [threading.Thread(target=caller, args=(125,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found.append({"requests": done, "rss_bytes": process.memory_info().rss})
        log(str(found[-1]))
    engine.close()
    return found


def extras(folder: Path, conversion: dict, scratch: Path, reps: int) -> dict:
    """Seconds, in turn: of loading, checked and not; of requests, with the switch for traces and without it."""
    from contextlib import nullcontext

    from steps.chat import service
    from steps.chat.service import Service

    def config(name: str) -> dict:
        return {"model": name, "max_tokens": 1, "trace": False}

    def checksums(name: str, of: dict) -> Path:
        path = scratch / f"{name}.json"
        path.write_text(json.dumps(of["files"]))
        return path

    found: dict = {"loads": [], "requests": []}
    check = checksums("checked", conversion)
    for rep in range(reps + 1):
        sample = {}
        for way in ("checked", "unchecked"):
            start = time.perf_counter()
            if way == "checked":
                Service(folder, check, config("model")).engine.close()
            else:
                Engine(folder).close()
            sample[way] = time.perf_counter() - start
        log(str(sample))
        found["loads"] += [sample] if rep else []
    tiny = converted(TINY, scratch / "tiny-extras", "")
    model = Service(scratch / "tiny-extras", checksums("tiny", tiny), config("tiny"))
    rows = [{"messages": [{"role": "user", "content": "What is the capital of France?"}]}]
    switch = service.traced
    for rep in range(2_200):
        sample = {}
        for way, used in (("switch", switch), ("none", lambda *_: nullcontext(lambda *_: None))):
            service.traced = used
            start = time.perf_counter()
            model.chat(rows)
            sample[way] = time.perf_counter() - start
        found["requests"] += [sample] if rep >= 200 else []
    service.traced = switch
    model.engine.close()
    return found


def ratios(samples: list[dict], name: str, over: str, key: str) -> float:
    """The median of the ratios of the same repetitions; of speeds, so above 1 is faster."""
    by = {(s["engine"], s["rep"]): s[key] for s in samples}
    reps = sorted({rep for engine, rep in by if engine == name})
    values = [by[name, rep] / by[over, rep] for rep in reps]
    return statistics.median(1 / value if key == "prefill_s" else value for value in values)


def table(found: dict) -> str:
    """What was measured, in Markdown."""
    lines = ["| what | measured |", "| --- | --- |"]
    for samples in (found.get("single", []),):
        for name in dict.fromkeys(s["engine"] for s in samples):
            own = [s for s in samples if s["engine"] == name]
            prefill = statistics.median(s["prompt"] / s["prefill_s"] for s in own)
            decode = statistics.median(s["decode"] for s in own)
            line = f"| {name}: prefill, decode tok/s | {prefill:.0f}, {decode:.1f}"
            if name != "this project":
                line += f" (this project: {ratios(samples, 'this project', name, 'prefill_s'):.2f}x, "
                line += f"{ratios(samples, 'this project', name, 'decode'):.2f}x)"
            lines.append(line + " |")
    if "single" in found:
        own = [s for s in found["single"] if s["engine"] == "this project"]
        read, rate = found["read_per_token"], statistics.median(s["bandwidth"] for s in own)
        share = statistics.median(s["decode"] * read / s["bandwidth"] for s in own)
        lines.append(
            f"| decode over bandwidth ({rate / 1e9:.0f} GB/s) / bytes read ({read / 1e9:.2f} GB) | {share:.2f} |"
        )
    if "rows" in found:
        ratio = statistics.median(
            s["rows"]["tokens"] / s["rows"]["seconds"] / (s["requests"]["tokens"] / s["requests"]["seconds"])
            for s in found["rows"]
        )
        lines.append(f"| 16 rows against 16 requests | {ratio:.2f}x |")
        if "recipe" in found:
            lines.append(f"| 16 rows against the usual recipe | {found['recipe']:.2f}x |")
    if "clients" in found:
        ratio = statistics.median(s["together"] / s["sequential"] for s in found["clients"])
        waits = [wait / s["prefill_s"] for s in found["clients"] for wait in s["first_token_s"]]
        lines.append(f"| 8 clients against one after the other | {ratio:.2f}x |")
        lines.append(f"| p95 of their first token over one prefill | {np.quantile(waits, 0.95):.2f}x |")
    if "turns" in found:
        ratio = statistics.median(s["fresh_s"] / s["kept_s"] for s in found["turns"])
        kept = statistics.median(s["kept_s"] for s in found["turns"])
        lines.append(f"| turn 5 after 1,000 tokens: kept against read again | {ratio:.1f}x ({kept:.2f} s) |")
    if "extras" in found:
        for name, one, other in (("loads", "checked", "unchecked"), ("requests", "switch", "none")):
            ratio = statistics.median(s[one] / s[other] for s in found["extras"][name])
            took = statistics.median(s[one] for s in found["extras"][name])
            lines.append(f"| {name}: {one} against {other} | {ratio:.3f}x ({1e3 * took:.2f} ms) |")
    if "steady" in found:
        sizes = [s["rss_bytes"] for s in found["steady"]]
        later = sizes[len(sizes) // 4 :]
        lines.append(f"| memory over the last three quarters of the requests | {max(later) / min(later) - 1:.1%} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, keep, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--checkpoint", type=Path, help="made by tests.geometries.make_checkpoint, as without it")
    parser.add_argument("--options", default=OPTIONS)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--chunk", type=int, default=Settings.prefill_chunk, help="the setting prefill_chunk")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--llama", nargs=2, metavar=("PYTHON", "GGUF"))
    parser.add_argument("--openvino", nargs=2, metavar=("PYTHON", "FOLDER"))
    args = parser.parse_args()
    found: dict = {}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        if "steady" in args.parts:  # first, while nothing else is in this process's memory
            found["steady"] = steady(scratch, args.requests)
        if set(args.parts) != {"steady"}:
            fields = PUBLISHED["phi-3-mini"] | {"num_hidden_layers": args.layers}
            made = scratch / "checkpoint"
            checkpoint = args.checkpoint or make_checkpoint(made, "phi-3-mini", TINY, **fields)
            log("converting")
            conversion = converted(checkpoint, scratch / "onnx", args.options)
        if "single" in args.parts:
            model = saved(scratch / "onnx", conversion, scratch / "model", "llm/v1/chat")
            converted(checkpoint, scratch / "recipe", "block_size=32")
            here = sys.executable
            engines = {
                "this project": (here, "model", model),
                "bare runtime": (here, "bare", scratch / "onnx"),
                "usual recipe": (here, "recipe", scratch / "recipe"),
            }
            if args.llama:
                engines["llama.cpp Q4_0"] = (args.llama[0], "llama", Path(args.llama[1]))
            if args.openvino:
                engines["OpenVINO int4"] = (args.openvino[0], "openvino", Path(args.openvino[1]))
            found["single"] = single(engines, args.reps, args.prompt, args.new)
            found["read_per_token"] = read_per_token(scratch / "onnx")
        if "rows" in args.parts:
            completions = saved(scratch / "onnx", conversion, scratch / "completions", "llm/v1/completions")
            found["rows"] = rows(completions, min(args.reps, 3))
            if "single" in args.parts:  # the recipe answers one prompt after another
                recipe = [s for s in found["single"] if s["engine"] == "usual recipe"]
                prefill = statistics.median(s["prefill_s"] / s["prompt"] for s in recipe)
                decode = statistics.median(s["decode"] for s in recipe)
                found["recipe"] = statistics.median(
                    (s["rows"]["prompt_tokens"] * prefill + s["rows"]["tokens"] / decode) / s["rows"]["seconds"]
                    for s in found["rows"]
                )
        if "extras" in args.parts:
            found["extras"] = extras(scratch / "onnx", conversion, scratch, args.reps)
        if {"clients", "turns"} & set(args.parts):
            engine = Engine(scratch / "onnx", Settings(prefill_chunk=args.chunk))
            if "clients" in args.parts:
                found["clients"] = clients(engine, min(args.reps, 3))
            if "turns" in args.parts:
                found["turns"] = turns(engine, min(args.reps, 3))
            engine.close()
    about = {"layers": args.layers, "options": args.options, "prompt": args.prompt, "new": args.new}
    content = about | {"environment": environment(*PACKAGES)} | found
    args.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(table(found))


if __name__ == "__main__":
    main()
