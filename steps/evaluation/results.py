"""evaluation.json: everything that one evaluation found, as a typed document.

The gates, the tables, the plots, the report and the tags of registered versions read these classes. Times are seconds
where a name ends in `_s` and milliseconds where it ends in `_ms`. A share lies between 0 and 1.
"""

import math
from typing import ClassVar, Literal

from pydantic import field_validator

from steps.checkpoint.manifest import Origin
from steps.common.documents import Document, Part
from steps.evaluation.method import EffortUsed, GatesFile, Machine, QuestionSet, ScoredText
from steps.evaluation.metrics import METRICS

Interval = tuple[float, float]
Preference = Literal["speed", "quality", "size"]  # what the best of several models is best in


class Figure(Part):
    """The value of one metric and its error. Each is None where it could not be measured, and never NaN or infinite."""

    value: float | None
    interval: Interval | None = None  # 95%
    standard_error: float | None = None

    @field_validator("value", "standard_error")
    @classmethod
    def _finite_or_none(cls, number: float | None) -> float | None:
        return number if number is not None and math.isfinite(number) else None

    @field_validator("interval")
    @classmethod
    def _finite_interval_or_none(cls, interval: Interval | None) -> Interval | None:
        return interval if interval is not None and all(map(math.isfinite, interval)) else None


class _HasFigures(Part):
    """A part with figures by metric name. A name that the metrics table lacks is refused."""

    figures: dict[str, Figure]

    @field_validator("figures")
    @classmethod
    def _names_are_metrics(cls, figures: dict[str, Figure]) -> dict[str, Figure]:
        if unknown := [name for name in figures if name not in METRICS]:
            raise ValueError(f"{unknown[0]} is not in steps/evaluation/metrics.py")
        return figures

    def value(self, metric: str) -> float | None:
        """Return the value of a metric; None where it was not measured."""
        return self.figure(metric).value

    def figure(self, metric: str) -> Figure:
        """Return the figure of a metric; a figure without a value where it was not measured."""
        return self.figures.get(metric, Figure(value=None))


class SpeedSample(Part):
    """Three requests, timed one after the other: an unseen prompt, then a cached prompt twice."""

    repetition: int
    prompt_tokens: int | None  # of the unseen prompt, as the model counts them
    first_token_s: float  # the unseen prompt, for 1 token
    cached_first_token_s: float  # the cached prompt, for 1 token
    cached_answer_s: float  # the cached prompt, for `new_tokens` tokens
    new_tokens: int | None  # as the model counts them


class ThroughputSample(Part):
    """A number of requests, answered for a number of clients at the same time."""

    clients: int
    requests: int
    seconds: float
    output_tokens: int
    failed: int  # requests
    error: str | None  # of the first failed request


class Samples(Part):
    """The raw samples of one model."""

    load_s: float
    first_call_s: float
    speed: tuple[SpeedSample, ...]
    throughput: tuple[ThroughputSample, ...]


class Histogram(Part):
    """Counts of values between edges; one edge more than counts."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


class GateResult(Part):
    """Whether a model passed a gate, and the comparison in words, such as "accuracy 0.97 < 0.98"."""

    text: str
    passed: bool


class EvaluatedModel(_HasFigures):
    """One model: what it is, what was measured of it, and what became of it."""

    label: str  # short name in tables and metric names
    uri: str
    model_id: str | None
    version: int | None  # of the registered model
    given: bool  # False: the champion before this evaluation, added for comparison
    was_champion: bool
    is_champion: bool
    alias: Literal["", "champion", "challenger", "previous"]  # of the version from now on; empty for none
    reason: str  # for its alias, or for none
    evaluation_run: str  # the MLflow run with a trace of each answer
    ignores_eos: bool  # whether answers could be made to go on past their end while they were timed
    no_fidelity_reason: str | None  # why the model was not compared with the reference token by token
    kl_histogram: Histogram | None  # nats, over the tokens of the text
    gates: tuple[GateResult, ...]
    samples: Samples

    @property
    def failed_gates(self) -> tuple[str, ...]:
        """The texts of the gates that the model failed."""
        return tuple(gate.text for gate in self.gates if not gate.passed)


class Reference(_HasFigures):
    """The checkpoint in PyTorch: answers in its own dtype, logits in float32."""

    dtype: str


class ChampionDecision(Part):
    """Which version is the champion, before and after this evaluation."""

    registered_model: str  # empty: none was named, so no alias moves
    version_before: int | None
    version_after: int | None
    label: str | None  # of the champion from now on, where it was evaluated here
    summary: str  # why
    has_aliases: bool  # whether the registry has aliases; without them the version's tag `promotion` names the champion


class Pair(Part):
    """Two models compared: their answers by McNemar's test, their decoding speeds by Wilcoxon's."""

    model: str
    against: str
    accuracy_difference: float
    accuracy_interval: Interval | None
    only_model_right: int
    only_against_right: int
    mcnemar_p: float
    p_worse: float
    speed_ratio: float | None
    speed_interval: Interval | None
    speed_p: float | None


class JudgedAnswer(Part):
    """One model's answer to one question."""

    text: str
    right: bool
    mistake: str  # why it is wrong; empty where it is right


class NotableQuestion(Part):
    """A question that is worth a look, with every answer to it."""

    question: str
    expected: str
    kind: str
    reference_answer: str
    answers: dict[str, JudgedAnswer]  # by label


class Evaluation(Document):
    """The whole of evaluation.json."""

    written_by: ClassVar[str] = "evaluate"
    schema_version: Literal[1] = 1
    run: str
    checkpoint: Origin
    reference: Reference
    question_set: QuestionSet
    text: ScoredText
    gates: GatesFile
    prefer: Preference
    judge: str  # empty for none
    effort: EffortUsed
    interleaved: bool  # whether the models were timed in turn within each repetition
    machine: Machine
    champion: ChampionDecision
    models: tuple[EvaluatedModel, ...]
    pairs: tuple[Pair, ...]
    notable_questions: tuple[NotableQuestion, ...]
    reproduce: tuple[str, ...]  # commands

    @property
    def champion_model(self) -> EvaluatedModel | None:
        """The champion from now on, where it was evaluated here."""
        return next((model for model in self.models if model.is_champion), None)

    @property
    def given_models(self) -> tuple[EvaluatedModel, ...]:
        """The models that the user named."""
        return tuple(model for model in self.models if model.given)

    @property
    def is_rejection(self) -> bool:
        """Whether each given model failed a gate."""
        return all(model.failed_gates for model in self.given_models)
