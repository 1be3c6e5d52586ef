"""How much is measured: a named choice, so that a profile of a small model need not wait for what a large one needs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """What one evaluation measures of each model."""

    questions: int  # at most, of the evaluation set
    tokens: int  # at most, predicted of the text for the fidelity
    prompt_lengths: tuple[int, ...]  # tokens
    new_tokens: int  # of each timed answer
    repetitions: int  # of each prompt length, in turn with the other models
    seconds: float  # after which no further repetition begins, if at least 5 are done
    concurrency: tuple[int, ...] = (1, 4, 8)
    requests: int = 8  # at each concurrency

    least_repetitions = 5


EFFORTS = {
    "quick": Effort(50, 512, (32, 128, 384), 24, 10, 20.0),
    "standard": Effort(1_000, 4_096, (64, 256, 1024), 64, 10, 1_800.0),
    "thorough": Effort(1_000_000, 32_768, (64, 256, 1024, 3072), 128, 20, 14_400.0, requests=16),
}
