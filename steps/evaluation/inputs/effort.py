"""How much an evaluation measures: three named choices, so that a small model does not wait as long as a large one."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Effort:
    """What one evaluation measures of each model."""

    least_repetitions: ClassVar[int] = 5  # done even when `seconds` are over

    questions: int  # of the evaluation set, at most
    tokens: int  # of the scored text that are predicted, at most
    prompt_lengths: tuple[int, ...]  # tokens of the timed prompts; all are longer with a long chat template
    new_tokens: int  # of each timed answer
    repetitions: int  # of each prompt length, in turn with the other models
    seconds: float  # no further repetition starts after them
    clients: tuple[int, ...] = (1, 4, 8)  # that send requests at the same time; each has a row in metrics.py
    requests: int = 8  # for each number of clients


EFFORTS = {
    "quick": Effort(50, 512, (32, 128, 384), 24, 10, 20.0),
    "standard": Effort(1_000, 4_096, (64, 256, 1024), 64, 10, 1_800.0),
    "thorough": Effort(1_000_000, 32_768, (64, 256, 1024, 3072), 128, 20, 14_400.0, requests=16),
}
