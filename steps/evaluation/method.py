"""How an evaluation measured: its inputs, its effort, its gates and its machine, as parts of evaluation.json."""

from typing import Literal

from pydantic import FiniteFloat

from steps.common.documents import Part


class QuestionSet(Part):
    """The evaluation set, and how much of it was asked."""

    path: str
    sha256: str
    questions: int
    asked: int
    kinds: dict[str, int]  # kind of match -> asked questions
    max_tokens: int  # of an answer


class ScoredText(Part):
    """The text that fidelity was measured on."""

    path: str
    sha256: str
    windows: int
    window_tokens: int  # at most, in one window
    scored_tokens: int


class GateLimit(Part):
    """One gate: a limit of a metric, inclusive. See verdict/gates.py.

    `how` says what is compared with the limit: the metric's value, the metric minus the other's, or the metric over the
    other's. `against` says who the other is.
    """

    metric: str
    bound: Literal["min", "max"]
    limit: FiniteFloat
    against: Literal["", "reference", "champion"] = ""
    how: Literal["value", "difference", "ratio"] = "value"


class GatesFile(Part):
    """The gates, and the file that they were read from."""

    path: str
    limits: tuple[GateLimit, ...]


class EffortUsed(Part):
    """How much was measured. See inputs/effort.py."""

    name: str
    questions: int
    tokens: int
    prompt_lengths: tuple[int, ...]
    new_tokens: int
    repetitions: int
    seconds: float
    clients: tuple[int, ...]
    requests: int


class Machine(Part):
    """The machine and the package versions that a speed figure depends on."""

    cpu: str
    usable_cpus: int
    platform: str
    python: str
    packages: dict[str, str]
    memory_bandwidth_gb_s: float
