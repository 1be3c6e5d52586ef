"""Find the evaluation that the requests are compared with: the model's own, else the champion's."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from steps.common.errors import StepError
from steps.evaluation.measure.speed import tpot
from steps.evaluation.results import EvaluatedModel, Evaluation
from steps.monitoring.compare import BaselineValues
from steps.monitoring.quantities import QUANTITIES
from steps.monitoring.recording.traces import read_answers
from steps.monitoring.recording.watched import Watched
from steps.monitoring.results import Baseline
from steps.monitoring.served import Observation, Served, observe
from steps.registry.aliases import CHAMPION
from steps.runs.artifacts import read_document
from steps.runs.tags import EVALUATION

if TYPE_CHECKING:
    from mlflow import MlflowClient

Kind = Literal["own evaluation", "champion's evaluation"]


@dataclass(frozen=True)
class Evaluated:
    """A baseline, the answers that it is made of, and the samples of its speed."""

    baseline: Baseline
    answers: tuple[Observation, ...] = ()
    model: EvaluatedModel | None = None

    def values(self) -> BaselineValues:
        """Return the values by quantity."""
        values = {
            name: [answer.values[name] for answer in self.answers if name in answer.values] for name in QUANTITIES
        }
        speed = self.model.samples.speed if self.model else ()
        values["tpot_ms"] = [1e3 * seconds for sample in speed if (seconds := tpot(sample)) is not None]
        first = tuple((float(s.prompt_tokens), 1e3 * s.first_token_s) for s in speed if s.prompt_tokens)
        return BaselineValues(values, first)


def find_baseline(
    client: "MlflowClient", watched: Watched, limit: int, progress: Callable[[], object] = lambda: None
) -> Evaluated:
    """Return the evaluation to compare with; an empty baseline with the reason if there is none.

    Args:
        limit: answers to read, at most.
        progress: called for each answer.
    """
    reason = "the model has no evaluation: evaluate it to have a baseline"
    for kind, run_id, version in _candidates(client, watched):
        try:
            evaluation = read_document(client, run_id, EVALUATION, Evaluation)
        except StepError as error:
            reason = str(error)
            continue
        model = _model(evaluation, version, watched.model_id if kind == "own evaluation" else "")
        if model is None:
            reason = f"run {run_id} did not evaluate this model"
            continue
        answers = read_answers(client, model.evaluation_run, limit, evaluation.question_set.max_tokens, progress)
        baseline = _baseline(kind, evaluation, model, answers, bool(watched.version))
        return Evaluated(baseline, tuple(map(observe, answers)), model)
    return Evaluated(Baseline(kind="none", run="", model="", answers=0, cpu="", reason=reason))


def _candidates(client: "MlflowClient", watched: Watched) -> Iterator[tuple[Kind, str, str]]:
    """Yield the evaluations that may serve: what they are, their run IDs, and the version that they evaluated."""
    name = watched.registered_model
    if watched.version:
        run_id = client.get_model_version(name, watched.version).tags.get("evaluation_run")
        if run_id:
            yield "own evaluation", run_id, watched.version
    if watched.model_id:
        metrics = client.get_logged_model(watched.model_id).metrics or []
        if metrics:
            latest = max(metrics, key=lambda metric: metric.timestamp)
            if latest.run_id:
                yield "own evaluation", latest.run_id, ""
    champion = client.get_registered_model(name).aliases.get(CHAMPION) if name else None
    if champion is not None and str(champion) != watched.version:
        run_id = client.get_model_version(name, str(champion)).tags.get("evaluation_run")
        if run_id:
            yield "champion's evaluation", run_id, str(champion)


def _model(evaluation: Evaluation, version: str, model_id: str) -> EvaluatedModel | None:
    for model in evaluation.models:
        if (version and str(model.version) == version) or (model_id and model.model_id == model_id):
            return model
    return None


def _baseline(
    kind: Kind, evaluation: Evaluation, model: EvaluatedModel, answers: tuple[Served, ...], one_version: bool
) -> Baseline:
    reasons = [] if answers else ["the traces of its answers are gone, so only the speed can be compared"]
    if kind == "champion's evaluation" and one_version:
        reasons.append("this version has no evaluation")
    return Baseline(
        kind=kind,
        run=evaluation.run,
        model=model.label,
        answers=len(answers),
        cpu=f"{evaluation.machine.cpu}, {evaluation.machine.usable_cpus} usable",
        reason="; ".join(reasons),
    )
