"""Simulated requests and baselines, with the product's own types."""

import numpy as np

from steps.monitoring.compare import BaselineValues
from steps.monitoring.served import Observation, Served

PROMPTS = (32, 128, 384)  # tokens of the prompts that an evaluation times
FIRST_MS, PER_TOKEN_MS = 5.0, 0.1


def served(number: int, **fields) -> Served:
    """A request that was answered well, one a minute."""
    usual: dict = {
        "trace_id": f"tr-{number}",
        "time_ms": 1_790_000_000_000 + 60_000 * number,
        "status": 200,
        "body": {"messages": [{"role": "user", "content": "What is the capital of France?"}]},
        "texts": ("Paris is the capital.",),
        "prompt_tokens": 14,
        "answer_tokens": (5,),
        "finish_reasons": ("stop",),
        "first_token_ms": 6.0,
        "total_ms": 14.0,
    }
    return Served(**usual | fields)


def values(random: np.random.Generator, shift: str = "", by: float = 1.0) -> dict[str, float]:
    """The values of one request.

    Args:
        shift: the quantity that is another: `by` times as large, or for a share, `by` itself.
    """
    shares = {"refused": 0.01, "failed": 0.0, "declined": 0.02, "cut": 0.2, "flawed": 0.01}
    shares |= {shift: by} if shift in shares else {}
    prompt = np.round(random.lognormal(3.5, 0.5))
    sizes = {
        "prompt_tokens": prompt,
        "answer_tokens": np.round(random.lognormal(3.0, 0.6)),
        "ttft_ms": (FIRST_MS + PER_TOKEN_MS * prompt) * random.lognormal(0, 0.15),
        "tpot_ms": random.lognormal(1.0, 0.2),
    }
    sizes |= {shift: by * sizes[shift]} if shift in sizes else {}
    return {name: float(random.random() < share) for name, share in shares.items()} | sizes


def observations(random: np.random.Generator, count: int, shift: str = "", by: float = 1.0) -> list[Observation]:
    """Requests in the order of their time. See `values`."""
    return [Observation(served(number), values(random, shift, by), "") for number in range(count)]


def baseline(random: np.random.Generator, answers: int = 50, repetitions: int = 10) -> BaselineValues:
    """An evaluation of the effort `quick`: its answers, and the samples of its speed at three lengths."""
    drawn = [values(random) for _ in range(answers)]
    by_name = {name: [row[name] for row in drawn] for name in drawn[0]}
    by_name["tpot_ms"] = by_name["tpot_ms"][: 3 * repetitions]
    first = [
        (float(tokens), (FIRST_MS + PER_TOKEN_MS * tokens) * random.lognormal(0, 0.15))
        for tokens in PROMPTS
        for _ in range(repetitions)
    ]
    return BaselineValues(by_name, first)
