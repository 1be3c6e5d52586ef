"""Several requests at once, conversations, and many requests: what one process of this project's model does."""

import random
import statistics
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypedDict

from steps.chat.api.requests import Sampling
from steps.chat.batching.engine import Engine
from steps.chat.batching.generation import Completion
from tests.benchmarks.chat_models import random_prompt
from tests.benchmarks.machine import log

_ROWS, _CLIENTS, _CALLERS = 16, 8, 4
_NEW_TOKENS = 128  # of an answer to a row or a client


class Batch(TypedDict):
    """What answering all rows took."""

    seconds: float
    tokens: int
    prompt_tokens: int


class RowsSample(TypedDict):
    """The same number of prompts as requests one after the other, and as the rows of one DataFrame."""

    requests: Batch
    rows: Batch


class ClientsSample(TypedDict):
    """The same requests one after the other, and from clients at random times."""

    prefill_s: float  # until the first token of a request alone, median
    sequential: float  # tokens a second
    together: float  # tokens a second
    first_token_s: list[float]  # of each client


class TurnsSample(TypedDict):
    """The time to the first token of a long prompt, with its history in the prompt cache and without."""

    kept_s: float
    fresh_s: float
    reused: int  # tokens


class MemorySample(TypedDict):
    """Resident memory of this process after a number of requests."""

    requests: int
    rss_bytes: int


def time_rows(model: Path, reps: int) -> list[RowsSample]:
    """Time 16 prompts of 13 tokens as requests and as rows, with 128 new tokens each.

    Args:
        model: an MLflow model of the task llm/v1/completions.
    """
    import mlflow
    import pandas as pd

    loaded = mlflow.pyfunc.load_model(str(model))

    def answer(frames: list[list[str]]) -> Batch:
        params = {"max_tokens": _NEW_TOKENS}
        start = time.perf_counter()
        answers = pd.concat([loaded.predict(pd.DataFrame({"prompt": prompts}), params=params) for prompts in frames])
        seconds = time.perf_counter() - start
        tokens, prompt_tokens = (int(answers[f"{kind}_tokens"].sum()) for kind in ("completion", "prompt"))
        return Batch(seconds=seconds, tokens=tokens, prompt_tokens=prompt_tokens)

    def prompts(rep: int, letter: str) -> list[str]:
        return [f"{rep}{letter}{number:02} abcdefg hijk" for number in range(_ROWS)]

    samples = []
    for rep in range(reps):
        one_by_one = answer([[prompt] for prompt in prompts(rep, "e")])
        samples.append(RowsSample(requests=one_by_one, rows=answer([prompts(rep, "o")])))
        log(samples[-1])
    return samples


def time_clients(engine: Engine, reps: int) -> list[ClientsSample]:
    """Time 8 requests of 64 tokens and 128 new tokens: one after the other, then from 8 clients.

    The clients come at random times, on average 1.5 prefills after each other (exponential gaps).
    """
    samples = []
    for rep in range(reps):
        start = time.perf_counter()
        alone = [_ask(engine, 100 * rep + client) for client in range(_CLIENTS)]
        sequential_s = time.perf_counter() - start
        prefill = statistics.median(answer.first_token_s for answer in alone)
        together, together_s = _ask_together(engine, rep, 1.5 * prefill)
        sample = ClientsSample(
            prefill_s=prefill,
            sequential=_tokens(alone) / sequential_s,
            together=_tokens(together) / together_s,
            first_token_s=[answer.first_token_s for answer in together],
        )
        log(sample)
        samples.append(sample)
    return samples


def _ask_together(engine: Engine, rep: int, mean_gap: float) -> tuple[list[Completion], float]:
    """Return the answers to 8 clients that come at random times, and the seconds until the last answer."""
    answers: dict[int, Completion] = {}

    def client(number: int, delay: float) -> None:
        time.sleep(delay)
        answers[number] = _ask(engine, 100 * rep + 50 + number)

    gaps, delay, clients = random.Random(rep), 0.0, []
    for number in range(_CLIENTS):
        clients.append(threading.Thread(target=client, args=(number, delay)))
        delay += gaps.expovariate(1 / mean_gap)
    seconds = _run(clients)
    return [answers[number] for number in range(_CLIENTS)], seconds


def _ask(engine: Engine, seed: int) -> Completion:
    return engine.submit(random_prompt(seed, 64), Sampling(_NEW_TOKENS)).wait()


def _tokens(answers: Iterable[Completion]) -> int:
    return sum(answer.completion_tokens for answer in answers)


def _run(threads: list[threading.Thread]) -> float:
    """Run threads to their end. Return the seconds."""
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start


def time_turns(engine: Engine, reps: int) -> list[TurnsSample]:
    """Time the first token of a conversation's fifth turn, after 1,000 tokens of history in four turns.

    The same number of unseen tokens is timed beside it.
    """
    samples = []
    for rep in range(reps):
        history = random_prompt(10_000 + rep, 1000)
        for turn in range(1, 5):
            engine.submit(history[: 250 * turn], Sampling(2)).wait()
        kept = engine.submit([*history, *random_prompt(20_000 + rep, 30)], Sampling(1)).wait()
        fresh = engine.submit(random_prompt(30_000 + rep, 1030), Sampling(1)).wait()
        sample = TurnsSample(kept_s=kept.first_token_s, fresh_s=fresh.first_token_s, reused=kept.reused_tokens)
        log(sample)
        samples.append(sample)
    return samples


def memory_over_requests(folder: Path, requests: int, every: int = 500) -> list[MemorySample]:
    """Measure resident memory after each `every` requests: 4 callers, prompts of 20 to 400 tokens, 16 new tokens.

    Args:
        folder: the converted shipped model.
    """
    import psutil

    engine, process, generator = Engine(folder), psutil.Process(), random.Random(0)
    samples = []
    for count in range(every, requests + 1, every):
        _run([threading.Thread(target=_caller(engine, generator, every // _CALLERS)) for _ in range(_CALLERS)])
        samples.append(MemorySample(requests=count, rss_bytes=process.memory_info().rss))
        log(samples[-1])
    engine.close()
    return samples


def _caller(engine: Engine, generator: random.Random, count: int) -> Callable[[], None]:
    def ask() -> None:
        for _ in range(count):
            prompt = [generator.randrange(10, 700) for _ in range(generator.randrange(20, 400))]
            engine.submit(prompt, Sampling(16)).wait()

    return ask
