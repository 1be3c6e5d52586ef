"""What measuring hands to the summary and the verdict."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from steps.chat.runtime.reasoning import answer_of
from steps.evaluation.inputs.reading import Messages
from steps.evaluation.inputs.windows import Window
from steps.evaluation.measure.model_process import Answer
from steps.evaluation.results import Samples

ANSWER_TOKENS = 128  # of an answer to a question, at most
THOUGHT_TOKENS = 1920  # more than that for a reasoning model


@dataclass(frozen=True)
class AnswerRule:
    """How long an answer may be, and whether a thought is separated from it."""

    max_tokens: int = ANSWER_TOKENS
    has_thoughts: bool = False  # the checkpoint is a reasoning model
    opens_thought: bool = False  # its chat template opens the thought

    @classmethod
    def of(cls, has_thoughts: bool, opens_thought: bool) -> "AnswerRule":
        """Return the rule of a checkpoint. A reasoning model gets tokens for its thought, too."""
        max_tokens = ANSWER_TOKENS + (THOUGHT_TOKENS if has_thoughts else 0)
        return cls(max_tokens, has_thoughts, opens_thought)

    def apply(self, answer: Answer) -> Answer:
        """Return an answer whose text has no thought, so that everything that judges it reads the answer only."""
        if not self.has_thoughts:
            return answer
        return replace(answer, text=answer_of(answer.text, self.opens_thought and answer.shows_thoughts))


@dataclass(frozen=True)
class Reference:
    """What PyTorch and the tokenizer make of the checkpoint: answers, and what the models are measured with."""

    answers: list[str]  # to the questions
    windows: list[Window]  # of the scored text
    prompts: list[list[Messages]]  # to time, of each length
    logits: Path  # float32 [scored tokens, vocabulary]
    vocabulary: int
    rule: AnswerRule = AnswerRule()

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
