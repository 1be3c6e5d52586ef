#!/usr/bin/env python3
"""Measure how fast the custom model makes tokens, beside transformers and onnxruntime-genai.

Every request pays for its tokens before the graph runs, and every answer pays for its text. So both must cost little.

encode   A text of 20, 1,000 and 100,000 tokens becomes tokens: by this project, and by transformers' fast tokenizer.
stream   An answer of 20, 1,000 and 100,000 tokens becomes text: token by token by this project, and all tokens at once
         by transformers. The cost of a token must not depend on the length.
request  A message becomes a prompt of about 100 tokens: by this project, by transformers' apply_chat_template, by
         onnxruntime-genai, and by the library `tokenizers` from the finished prompt. This project less the last is what
         the template, the checks and the protection of special tokens add.
load     A new process imports the tokenizer's library, loads the tokenizer, and makes a first prompt: by this project,
         and by onnxruntime-genai. The process has imported MLflow and ONNX Runtime before, as each logged model does.

All ways run in turn, --reps times. Each sample has wall time, and CPU time of the process: the machine is shared, and
CPU time does not count what waits. Printed are medians of the CPU times, and medians of the ratios within a repetition.

Output: OUT.json holds the raw samples, the environment and the load of the machine. Markdown tables are printed.
Progress goes to stderr.

Usage: python tests/benchmarks/tokens.py OUT.json [FOLDER ...] [--reps 15]
       (inside the project's environment. FOLDER has a tokenizer.json, a tokenizer_config.json and a chat template.
       Without it, the tokenizers are the shipped model's and two small ones of Phi's make)
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TypedDict

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.benchmarks.machine import environment, log, run_and_watch  # noqa: E402
from tests.chat.runtime.pieces import CODE  # noqa: E402

if TYPE_CHECKING:
    from steps.chat.runtime.tokenizer import ChatTokenizer

PACKAGES = ("tokenizers", "jinja2", "transformers", "onnxruntime-genai", "onnxruntime", "mlflow")
LENGTHS = (20, 1_000, 100_000)  # tokens
PROMPT = 100  # tokens of a request, about
_PROSE = "The quick brown fox jumps over the lazy dog, while it's 25 degrees outside. Größe, naïve, Привет, 你好! "
_LEAST = 20_000  # tokens that a sample makes at least, so that it takes milliseconds
OURS, TRANSFORMERS, GENAI, LIBRARY = "this project", "transformers", "onnxruntime-genai", "tokenizers alone"
Ways = dict[str, Callable[[], object]]


class TokenSample(TypedDict):
    """One repetition of one way."""

    tokenizer: str
    part: str  # encode, stream, request, load, first
    tokens: int
    way: str
    rep: int  # samples with the same number ran next to each other
    wall_s: float  # of one text, one answer, one request, one load
    cpu_s: float


def text_of(encode: Callable[[str], list[int]], tokens: int) -> str:
    """Return a text of prose and code that has nearly this many tokens."""
    source = "".join(f"{_PROSE}\n{code}" for code in CODE.values())
    characters = source * (tokens * 8 // len(source) + 1)
    end = len(characters)
    while (count := len(encode(characters[:end]))) > tokens:
        end = min(end - 1, end * tokens // count)
    return characters[:end]


def timed(ways: Ways, times: int, reps: int) -> Iterator[tuple[int, str, float, float]]:
    """Call each way `times` times, in turn, `reps` times. One more repetition before them warms up.

    Yields:
        The repetition, the way, and the seconds of one call: wall time and CPU time.
    """
    for rep in range(reps + 1):
        for way, call in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(times):
                call()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            if rep:
                yield rep, way, wall / times, cpu / times


def measure_texts(name: str, folder: Path, reps: int) -> list[TokenSample]:
    """Time texts and answers of each length."""
    from transformers import AutoTokenizer

    from steps.chat.runtime.tokenizer import ChatTokenizer

    ours, reference = ChatTokenizer(folder), AutoTokenizer.from_pretrained(folder)
    samples = []
    for length in LENGTHS:
        text = text_of(ours.encode, length)
        tokens = ours.encode(text)

        if reference(text, add_special_tokens=False, verbose=False)["input_ids"] != tokens:
            raise RuntimeError(f"{name}: the tokens are not transformers'")
        parts: dict[str, Ways] = {
            "encode": {
                OURS: partial(ours.encode, text),
                TRANSFORMERS: partial(reference, text, add_special_tokens=False, verbose=False),
            },
            "stream": {OURS: partial(_stream, ours, tokens), TRANSFORMERS: partial(reference.decode, tokens)},
        }
        for part, ways in parts.items():
            for rep, way, wall, cpu in timed(ways, max(1, _LEAST // length), reps):
                samples.append(TokenSample(
                    tokenizer=name, part=part, tokens=len(tokens), way=way, rep=rep, wall_s=wall, cpu_s=cpu
                ))  # fmt: skip
        log(f"{name}: {length} tokens")
    return samples


def _stream(tokenizer: "ChatTokenizer", tokens: list[int]) -> str:
    decoder = tokenizer.stream_decoder()
    return "".join(map(decoder.decode, tokens))


def measure_requests(name: str, folder: Path, converted: Path, reps: int) -> list[TokenSample]:
    """Time a request of about PROMPT tokens."""
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    from steps.chat.runtime.tokenizer import ChatTokenizer
    from steps.conversion.genai_tokenizer import load_tokenizer

    ours, reference, genai = ChatTokenizer(folder), AutoTokenizer.from_pretrained(folder), load_tokenizer(converted)
    library = Tokenizer.from_file(str(folder / "tokenizer.json"))
    fixed = len(ours.encode_chat([{"role": "user", "content": "a"}]))
    messages = [{"role": "user", "content": text_of(ours.encode, PROMPT - fixed + 1)}]
    prompt = reference.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    tokens = ours.encode_chat(messages)
    if library.encode(prompt, add_special_tokens=False).ids != tokens:
        raise RuntimeError(f"{name}: the prompt is not transformers'")
    ways: Ways = {
        OURS: lambda: ours.encode_chat(messages),
        LIBRARY: lambda: library.encode(prompt, add_special_tokens=False).ids,
        TRANSFORMERS: lambda: reference.apply_chat_template(messages, add_generation_prompt=True),
        GENAI: lambda: genai.encode(genai.apply_chat_template(json.dumps(messages), add_generation_prompt=True)),
    }
    return [
        TokenSample(tokenizer=name, part="request", tokens=len(tokens), way=way, rep=rep, wall_s=wall, cpu_s=cpu)
        for rep, way, wall, cpu in timed(ways, 100, reps * 10)
    ]


def load_once(way: str, folder: str) -> None:
    """Print the seconds of loading a tokenizer and of a first prompt. Runs in the child process."""
    import mlflow.pyfunc  # noqa: F401
    import onnxruntime  # noqa: F401

    messages = [{"role": "user", "content": "What is the capital of France?"}]
    times = [(time.perf_counter(), time.process_time())]
    if way == OURS:
        from steps.chat.runtime.tokenizer import ChatTokenizer

        tokenizer = ChatTokenizer(Path(folder))
        times.append((time.perf_counter(), time.process_time()))
        tokenizer.encode_chat(messages)
    else:
        import onnxruntime_genai  # noqa: F401

        from steps.conversion.genai_tokenizer import load_tokenizer

        genai = load_tokenizer(Path(folder))
        times.append((time.perf_counter(), time.process_time()))
        genai.encode(genai.apply_chat_template(json.dumps(messages), add_generation_prompt=True))
    times.append((time.perf_counter(), time.process_time()))
    print(json.dumps({"times": times}))


def measure_loads(name: str, converted: Path, reps: int) -> list[TokenSample]:
    """Time loading a tokenizer in new processes."""
    samples = []
    for rep in range(reps + 1):
        for way in (OURS, GENAI):
            call = f"from tests.benchmarks.tokens import load_once; load_once({way!r}, {str(converted)!r})"
            start, loaded, prompt = run_and_watch(["-c", call])["times"]
            for part, (wall, cpu) in {"load": loaded, "first prompt": prompt}.items():
                samples.append(TokenSample(
                    tokenizer=name, part=part, tokens=0, way=way, rep=rep, wall_s=wall - start[0], cpu_s=cpu - start[1]
                ))  # fmt: skip
    return [sample for sample in samples if sample["rep"]]


def table(samples: list[TokenSample]) -> str:
    """Return the medians and the medians of the ratios, in Markdown."""
    rows = ["| tokenizer | what | tokens | way | CPU µs, median | µs a token | this project's CPU time against it |"]
    rows.append("| --- | --- | --- | --- | --- | --- | --- |")
    groups: dict[tuple[str, str, int, str], dict[int, float]] = {}
    for sample in samples:
        key = (sample["tokenizer"], sample["part"], sample["tokens"], sample["way"])
        groups.setdefault(key, {})[sample["rep"]] = sample["cpu_s"] * 1e6
    for (name, part, tokens, way), times in groups.items():
        ours = groups[name, part, tokens, OURS]
        ratio = median(ours[rep] / times[rep] for rep in times)
        each = f"{median(times.values()) / tokens:.2f}" if tokens else ""
        added = f", {median(ours[rep] - times[rep] for rep in times):.0f} µs more" if way == LIBRARY else ""
        rows.append(
            f"| {name} | {part} | {tokens or ''} | {way} | {median(times.values()):,.0f} | {each} | "
            f"{ratio:.2f}x{added} |"
        )
    return "\n".join(rows)


def folders(paths: list[Path], scratch: Path) -> dict[str, Path]:
    """Return the folders to measure by name."""
    from tests.checkpoints.phi_tokenizers import save_tokenizer

    if paths:
        return {path.name: path for path in paths}
    made = {kind: save_tokenizer(scratch / kind, kind) for kind in ("phi-3.5-mini", "phi-4-mini")}
    return {"tiny-phi3": ROOT / "params" / "tiny-phi3", **made}


def with_genai_config(folder: Path, config: Path, target: Path) -> Path:
    """Copy a tokenizer beside a genai_config.json, without which onnxruntime-genai loads nothing."""
    target.mkdir()
    for file in folder.glob("*"):
        if file.suffix in (".json", ".jinja") and file.name != "config.json":
            shutil.copy(file, target)
    shutil.copy(config, target)
    return target


def main() -> None:
    """Measure, write OUT.json after each tokenizer, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--reps", type=int, default=15)
    args = parser.parse_args()
    from steps.conversion.convert import convert
    from steps.conversion.options import parse_choice

    samples: list[TokenSample] = []
    load = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory() as scratch:
        convert(ROOT / "params" / "tiny-phi3", Path(scratch) / "onnx", parse_choice("genai", "int4", "", "cpu"))
        for name, folder in folders(args.folders, Path(scratch)).items():
            config = Path(scratch) / "onnx" / "genai_config.json"
            converted = with_genai_config(folder, config, Path(scratch) / f"{name}-converted")
            samples += measure_texts(name, folder, args.reps)
            samples += measure_requests(name, folder, converted, args.reps)
            samples += measure_loads(name, converted, args.reps)
            load.append(os.getloadavg()[0])
            about: dict[str, Any] = {"environment": environment(*PACKAGES), "load_average": load}
            args.out.write_text(json.dumps(about | {"samples": samples}, indent=1) + "\n", encoding="utf-8")
    print(table(samples))


if __name__ == "__main__":
    main()
