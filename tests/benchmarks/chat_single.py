"""One request at a time: this project's model beside other engines, each in a process of its own, timed in turn.

The processes run chat_engines.py, because peers may need another Python than this project.
"""

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np

from steps.chat.runtime.cpus import usable_cpus
from tests.benchmarks.machine import ROOT, log

THIS_PROJECT = "this project"
RECIPE = "usual recipe"


class EngineSample(TypedDict):
    """One timed repetition of one engine, as OUT.json has it."""

    engine: str
    rep: int  # repetitions with the same number ran next to each other
    prompt: int  # tokens
    prefill_s: float  # seconds for the prompt and the first token
    decode: float  # tokens a second after the first token
    bandwidth: NotRequired[float]  # of memory, bytes a second; beside this project's samples


Timing = Callable[[int, int, int], dict[str, float]]


@contextmanager
def engine_process(python: str, kind: str, path: Path) -> Iterator[Timing]:
    """Run chat_engines.py.

    Args:
        python: the interpreter.
        kind: of engine, as chat_engines.py takes it.

    Yields:
        A function of (repetition, prompt tokens, new tokens) that times one request.

    Raises:
        RuntimeError: the engine could not be loaded.
    """
    command = [python, str(ROOT / "tests" / "benchmarks" / "chat_engines.py"), kind, str(path)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdin and process.stdout  # both are pipes
    requests, answers = process.stdin, process.stdout
    if not answers.readline():
        raise RuntimeError(f"{kind} did not start; to see why, run: {' '.join(command)}")

    def time_request(rep: int, prompt: int, new: int) -> dict[str, float]:
        print(json.dumps({"rep": rep, "prompt": prompt, "new": new}), file=requests, flush=True)
        return json.loads(answers.readline())

    try:
        yield time_request
    finally:
        requests.close()
        process.wait()


def time_engines(engines: dict[str, tuple[str, str, Path]], reps: int, prompt: int, new: int) -> list[EngineSample]:
    """Time every engine in turn, `reps` times. One more repetition before them warms up.

    Args:
        engines: name -> (Python, kind, path), as engine_process takes them.
        prompt: tokens.
        new: tokens after the first token of the answer.
    """
    samples: list[EngineSample] = []
    with ExitStack() as stack:
        timings = {name: stack.enter_context(engine_process(*engine)) for name, engine in engines.items()}
        for rep in range(reps + 1):
            for name, time_request in timings.items():
                times = time_request(rep, prompt, new)
                sample = EngineSample(
                    engine=name, rep=rep, prompt=prompt, prefill_s=times["prefill_s"], decode=times["decode"]
                )
                if name == THIS_PROJECT:
                    sample["bandwidth"] = memory_bandwidth()
                log(sample)
                if rep:
                    samples.append(sample)
    return samples


def memory_bandwidth() -> float:
    """Return the bytes a second of reading 1 GiB five times, by a thread for each usable CPU."""
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


def weight_bytes_per_token(folder: Path) -> int:
    """Return the bytes of weights that a decode step reads: all but the embedding, of which it reads one row."""
    import onnx_ir

    weights = onnx_ir.load(folder / "model.onnx").graph.initializers
    return sum(
        int(weight.const_value.nbytes)
        for name, weight in weights.items()
        if weight.const_value is not None and "embed_tokens" not in name
    )
