"""What measuring hands to the summary and the verdict."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from steps.evaluation.inputs.reading import Messages
from steps.evaluation.inputs.windows import Window
from steps.evaluation.measure.model_process import Answer
from steps.evaluation.results import Samples


@dataclass(frozen=True)
class Reference:
    """What PyTorch and the tokenizer make of the checkpoint: answers, and what the models are measured with."""

    answers: list[str]  # to the questions
    windows: list[Window]  # of the scored text
    prompts: list[list[Messages]]  # to time, of each length
    logits: Path  # float32 [scored tokens, vocabulary]
    vocabulary: int

    @property
    def scored_tokens(self) -> int:
        """Tokens of the text that are predicted."""
        return sum(len(window.targets) for window in self.windows)


@dataclass(frozen=True)
class Measured:
    """The measurements of one model."""

    size_bytes: int  # of its files
    ignores_eos: bool  # whether its answers went on past their end token while it was timed
    peak_rss_bytes: int
    samples: Samples
    answers: list[Answer]  # to the questions
    scores: np.ndarray | None  # of tokens, see fidelity.score_tokens; also in the file LABEL.npy of the scratch folder
    no_fidelity_reason: str | None  # why there are no scores
    bytes_read_per_token: int | None  # of the weights, by decoding


@dataclass(frozen=True)
class Measurements:
    """The measurements of all models."""

    measured: dict[str, Measured]  # by label
    failures: dict[str, str]  # by label: why an optional model could not be measured
    interleaved: bool  # whether all models were loaded together and timed in turn
