"""The one table of quantities: what monitoring compares, and how it is shown.

A new quantity needs a row here and its value in served.py.
"""

from dataclasses import dataclass
from typing import Literal

from steps.monitoring.drift import Change


@dataclass(frozen=True)
class Quantity:
    """One quantity of a request."""

    name: str  # in monitoring.json and in MLflow
    title: str  # in the report
    change: Change  # what counts as a drift
    style: Literal["tokens", "ms", "share"]
    definition: str
    optional: bool = False  # compared only if the user asks for it


_TABLE = (
    Quantity("prompt_tokens", "Prompt length", "any", "tokens", "tokens of the prompt, as the model counts them"),
    Quantity("answer_tokens", "Answer length", "any", "tokens", "tokens of the answer; with several choices, the mean"),
    Quantity(
        "ttft_ms",
        "Time to first token",
        "up",
        "ms",
        "from the request to its first token, with the time in the queue; divided by the evaluation's time for a "
        "prompt of this length",
    ),
    Quantity("tpot_ms", "Time per output token", "up", "ms", "of the tokens after the first"),
    Quantity("refused", "Refused requests", "share", "share", "the client's mistakes: status 400 to 499 except 429"),
    Quantity("failed", "Failed requests", "share", "share", "the server's failures: status 500 and more, and 429"),
    Quantity("declined", "Declining answers", "share", "share", 'answers that begin like "I\'m sorry, I cannot"'),
    Quantity("cut", "Answers cut short", "share", "share", "answers that ended at their limit of tokens"),
    Quantity(
        "flawed",
        "Flawed answers",
        "share",
        "share",
        "answers that are empty, repeat themselves, are in another script than the question, or lack the format asked "
        "for",
    ),
    Quantity(
        "rejected",
        "Answers that the judge rejects",
        "share",
        "share",
        "answers that do not address the question, says the judge",
        optional=True,
    ),
)
QUANTITIES: dict[str, Quantity] = {quantity.name: quantity for quantity in _TABLE}
