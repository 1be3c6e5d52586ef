"""HTTP clients in one event loop that cost little, because they share the CPUs with the server that they measure.

A client opens a connection for each request, notes when the first text arrives, and reads the rest only to count it.
"""

import asyncio
import json
import random
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_TEXT = re.compile(rb'"(?:text|content)": ?"[^"]')  # a choice with a text that is not empty
_TOKENS = re.compile(rb'"completion_tokens": ?(\d+)')


@dataclass(frozen=True)
class Answered:
    """One request that was answered. Times are seconds after its beginning."""

    first_token_s: float
    total_s: float
    tokens: int


@dataclass(frozen=True)
class Round:
    """The requests of several clients."""

    seconds: float
    answers: tuple[Answered, ...]

    @property
    def tokens_per_s(self) -> float:
        """Tokens of all answers a second."""
        return sum(answer.tokens for answer in self.answers) / self.seconds

    def sample(self) -> dict[str, Any]:
        """Return the round as serve.py writes it."""
        firsts = [round(answer.first_token_s, 5) for answer in self.answers]
        return {"tokens_per_s": round(self.tokens_per_s, 3), "first_token_s": firsts}


def completion(prompt: Sequence[int], new: int) -> dict[str, Any]:
    """Return the body of a streamed request of /v1/completions, which this project and llama.cpp understand alike."""
    return {
        "prompt": [*prompt],
        "max_tokens": new,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def invocation(prompt: Sequence[int], new: int) -> dict[str, Any]:
    """Return the body of a request of /invocations, as the usual recipe's model takes it."""
    return {"dataframe_records": [{"prompt": json.dumps([*prompt]), "max_tokens": new}]}


async def ask(url: str, path: str, body: Mapping[str, Any], tokens: int = 0) -> Answered:
    """Send a request and read the answer.

    Args:
        url: of the server, such as http://127.0.0.1:8000.
        tokens: of the answer, for a server that does not tell.

    Raises:
        RuntimeError: the answer is an error, or has no tokens.
    """
    host, _, port = url.removeprefix("http://").partition(":")
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    start = time.perf_counter()
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    received, first = b"", 0.0
    while part := await reader.read(1 << 16):
        if not first and _TEXT.search(part):
            first = time.perf_counter()
        received += part
    end = time.perf_counter()
    writer.close()
    if not received.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"{url}{path}: {received[:500]!r}")
    counted = _TOKENS.findall(received)
    answered = Answered((first or end) - start, end - start, int(counted[-1]) if counted else tokens)
    if not answered.tokens:
        raise RuntimeError(f"{url}{path}: no tokens in {received[-500:]!r}")
    return answered


def run_clients(url: str, path: str, bodies: Sequence[Sequence[Mapping[str, Any]]], gap: float, tokens: int) -> Round:
    """Let clients ask. They begin at random times, and each sends its requests one after the other.

    Args:
        bodies: of each client's requests.
        gap: seconds between the beginnings of two clients, on average (exponential gaps).
        tokens: see `ask`.
    """

    async def client(delay: float, requests: Sequence[Mapping[str, Any]]) -> list[Answered]:
        await asyncio.sleep(delay)
        return [await ask(url, path, body, tokens) for body in requests]

    async def everybody() -> Round:
        start = time.perf_counter()
        delays = starts(len(bodies), gap)
        answers = await asyncio.gather(*map(client, delays, bodies))
        return Round(time.perf_counter() - start, tuple(answer for some in answers for answer in some))

    return asyncio.run(everybody())


def starts(clients: int, gap: float) -> list[float]:
    """Return when each client begins: the same for every server."""
    generator, delay, delays = random.Random(clients), 0.0, []
    for _ in range(clients):
        delays.append(delay)
        delay += generator.expovariate(1 / gap) if gap else 0.0
    return delays
