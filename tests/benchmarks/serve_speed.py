"""How fast the server answers: beside its own engine, beside llama.cpp's server, and beside `mlflow models serve`.

What is compared is loaded at the same time and asked in turn, so that a repetition's samples ran next to each other.
All engines get the same tokens, write the same number of tokens, and never see a prompt twice.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

from steps.chat.runtime.tokenizer import ChatTokenizer
from tests.benchmarks.chat_models import random_prompt
from tests.benchmarks.machine import ROOT, log
from tests.benchmarks.serve_clients import completion, invocation, run_clients
from tests.benchmarks.serve_models import Models
from tests.benchmarks.serve_processes import (
    engine_in_process,
    gauge,
    llama_server,
    mlflow_models_serve,
    this_project,
)

PATH = "/v1/completions"
_PAIRS = 3  # single requests over HTTP and in process, in each repetition of first_token


class SpeedSample(TypedDict):
    """One round of one engine, as OUT.json has it."""

    part: str
    model: str
    engine: str
    clients: int
    rep: int
    tokens_per_s: float
    first_token_s: list[float]
    engine_s: NotRequired[list[float]]  # of these seconds, those that the server's engine counts itself


@dataclass(frozen=True)
class Work:
    """What clients ask for: tokens of a prompt, tokens of an answer, and repetitions of each round."""

    prompt: int
    new: int
    reps: int


class Prompts:
    """Prompts that no engine has seen: of the text, or random ones if the checkpoint has no language."""

    def __init__(self, models: Models, speaks: bool, length: int) -> None:
        text = (ROOT / "params" / "texts" / "general.txt").read_text(encoding="utf-8")
        self._tokens = ChatTokenizer(models.onnx).encode(text) if speaks else []
        self._length, self._count = length, 0

    def next(self) -> list[int]:
        """Return a prompt."""
        self._count += 1
        if not self._tokens:
            return random_prompt(self._count, self._length)
        start = self._count * 37 % (len(self._tokens) - self._length)  # 37 and the length share no factor, as a rule
        return self._tokens[start : start + self._length]

    def of_clients(self, clients: int, requests: int = 1) -> list[list[list[int]]]:
        """Return the prompts of each client."""
        return [[self.next() for _ in range(requests)] for _ in range(clients)]


@dataclass(frozen=True)
class Bench:
    """One kind of weights, and what clients ask for."""

    name: str
    models: Models
    prompts: Prompts
    work: Work

    def against_engine(self, clients: int = 8) -> Iterator[SpeedSample]:
        """Yield rounds over HTTP and of the engine in process, whose callers read pieces, or wait for whole answers."""
        with this_project(self.models.mlflow) as server, engine_in_process(self.models.mlflow) as in_process:
            for rep in range(self.work.reps + 1):  # the first warms up
                for engine in ("http", "in process, pieces", "in process, whole"):
                    prompts = self.prompts.of_clients(clients)
                    if engine == "http":
                        sample = self._ask(server.url, prompts)
                    else:
                        sample = in_process(prompts, self.work.new, 0.0, engine.endswith("pieces"))
                    if rep:
                        yield self._sample("engine", engine, clients, rep, sample)

    def first_token(self) -> Iterator[SpeedSample]:
        """Yield single requests of two tokens: over HTTP, and in process."""
        with this_project(self.models.mlflow) as server, engine_in_process(self.models.mlflow) as in_process:
            for rep in range(_PAIRS * (self.work.reps + 1)):
                before = gauge(server.url, "phi_time_to_first_token_seconds_sum")
                prompt = self.prompts.next()
                http = run_clients(server.url, PATH, [[completion(prompt, 2)]], 0.0, 0).sample()
                after = gauge(server.url, "phi_time_to_first_token_seconds_sum")
                inside = in_process([[self.prompts.next()]], 2, 0.0, True)
                if rep >= _PAIRS:
                    sample = self._sample("first_token", "http", 1, rep, http)
                    yield sample | {"engine_s": [after - before]}
                    yield self._sample("first_token", "in process, pieces", 1, rep, inside)

    def against_llama(self, programs: Path, counts: Sequence[int]) -> Iterator[SpeedSample]:
        """Yield rounds of this server and of llama.cpp's for each number of clients.

        Args:
            programs: the folder of llama.cpp's programs.
        """
        with this_project(self.models.mlflow) as server:
            self._ask(server.url, self.prompts.of_clients(1))
            alone = self._ask(server.url, self.prompts.of_clients(1))
            for clients in counts:
                with llama_server(programs, self.models.gguf, clients) as llama:
                    self._ask(llama.url, self.prompts.of_clients(clients))
                    for rep in range(1, self.work.reps + 1):
                        for engine, url in (("http", server.url), ("llama.cpp", llama.url)):
                            prompts = self.prompts.of_clients(clients, max(2, 8 // clients))
                            sample = self._ask(url, prompts, gap=alone["first_token_s"][0])
                            yield self._sample("llama", engine, clients, rep, sample)

    def against_recipe(self, clients: int = 8) -> Iterator[SpeedSample]:
        """Yield rounds of this server, and of `mlflow models serve` with the usual recipe's model."""
        with ExitStack() as stack:
            server = stack.enter_context(this_project(self.models.mlflow))
            recipe = stack.enter_context(mlflow_models_serve(self.models.recipe))
            for rep in range(self.work.reps + 1):
                new = self.work.new if rep else 2  # the first warms up
                ours = self._ask(server.url, self.prompts.of_clients(clients), new=new)
                bodies = [[invocation(p, new) for p in some] for some in self.prompts.of_clients(clients)]
                theirs = run_clients(recipe.url, "/invocations", bodies, 0.0, new).sample()
                if rep:
                    yield self._sample("recipe", "http", clients, rep, ours)
                    yield self._sample("recipe", "mlflow models serve", clients, rep, theirs)

    def _ask(self, url: str, prompts: list[list[list[int]]], gap: float = 0.0, new: int = 0) -> dict:
        bodies = [[completion(prompt, new or self.work.new) for prompt in some] for some in prompts]
        return run_clients(url, PATH, bodies, gap, 0).sample()

    def _sample(self, part: str, engine: str, clients: int, rep: int, round_: dict) -> SpeedSample:
        sample = SpeedSample(
            part=part,
            model=self.name,
            engine=engine,
            clients=clients,
            rep=rep,
            tokens_per_s=round_["tokens_per_s"],
            first_token_s=round_["first_token_s"],
        )
        log(sample)
        return sample
