"""Record an evaluation: on its run, on the logged models, and on the registered versions."""

from pathlib import Path
from typing import TYPE_CHECKING

from steps.evaluation.assembly import Findings
from steps.evaluation.inputs.question import Question
from steps.evaluation.metrics import METRICS
from steps.evaluation.report.formatting import count
from steps.evaluation.report.page import html
from steps.evaluation.report.plots import PLOTS
from steps.evaluation.report.summary_page import markdown
from steps.evaluation.report.wording import verdict_sentence
from steps.evaluation.results import EvaluatedModel, Evaluation
from steps.registry.aliases import promote
from steps.registry.versions import record_evaluation
from steps.runs.tags import EVALUATION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow import MlflowClient


def log_evaluation(
    client: "MlflowClient",
    evaluation: Evaluation,
    questions: "Sequence[Question]",
    findings: Findings,
    scratch: Path,
) -> None:
    """Log everything on the run: inputs, metrics, answers, token scores, the report, and last evaluation.json.

    Args:
        questions: that were asked.
        scratch: the folder with the token scores of each model, LABEL.npy.
    """
    _log_inputs(client, evaluation, questions)
    _log_metrics(client, evaluation)
    _log_answers(client, evaluation, questions, findings)
    for label, measured in findings.measurements.measured.items():
        if measured.scores is not None:
            client.log_artifact(evaluation.run, str(scratch / f"{label}.npy"), "fidelity")
    plots = {name: svg for name, draw in PLOTS.items() if (svg := draw(evaluation))}
    for name, svg in plots.items():
        client.log_text(evaluation.run, svg, f"plots/{name}.svg")
    client.log_text(evaluation.run, html(evaluation, plots), "report.html")
    client.log_text(evaluation.run, evaluation.to_json(), EVALUATION)


def _log_inputs(client: "MlflowClient", evaluation: Evaluation, questions: "Sequence[Question]") -> None:
    """Log the evaluation set and the logged models as inputs of the run."""
    import mlflow
    import pandas as pd
    from mlflow.data.pandas_dataset import from_pandas
    from mlflow.entities import LoggedModelInput

    path = evaluation.question_set.path
    columns = {
        "question": [question.text for question in questions],
        "expected": [question.expected_text for question in questions],
    }
    mlflow.log_input(from_pandas(pd.DataFrame(columns), source=path, name=Path(path).stem), context="evaluation")
    models = [LoggedModelInput(model.model_id) for model in evaluation.models if model.model_id]
    client.log_inputs(evaluation.run, models=models)


def _log_metrics(client: "MlflowClient", evaluation: Evaluation) -> None:
    """Log the metrics of each model on the run, and on the logged model where there is one."""
    for model in evaluation.models:
        for name, figure in model.figures.items():
            if figure.value is not None:
                client.log_metric(evaluation.run, f"{name}/{model.label}", figure.value, model_id=model.model_id)


def _log_answers(
    client: "MlflowClient", evaluation: Evaluation, questions: "Sequence[Question]", findings: Findings
) -> None:
    """Log a table of all answers."""
    import pandas as pd

    columns = {
        "question": [question.text for question in questions],
        "expected": [question.expected_text for question in questions],
        "reference": findings.reference.answers,
    }
    for label, measured in findings.measurements.measured.items():
        columns[label] = [answer.text for answer in measured.answers]
    client.log_table(evaluation.run, pd.DataFrame(columns), "answers.json")


def summary_line(evaluation: Evaluation) -> str:
    """Return the result of the evaluation in a line."""
    models = count(len(evaluation.given_models), "model")
    questions = count(evaluation.question_set.asked, "question")
    champion = evaluation.champion
    line = f"{models} on {questions}, {verdict_sentence(evaluation)}"
    if champion.registered_model and not champion.has_aliases:
        line += " (named by the version's tag `promotion`: this registry has no aliases)"
    return line


def record_versions(client: "MlflowClient", evaluation: Evaluation) -> None:
    """Write on each evaluated version what it scored, its verdict and the reason; then move the aliases."""
    registered_model = evaluation.champion.registered_model
    if not registered_model:
        return
    description = markdown(evaluation)
    for model in evaluation.models:
        if model.version:
            record_evaluation(client, registered_model, str(model.version), _tags(evaluation, model), description)
    if evaluation.champion.has_aliases:
        _move_aliases(client, evaluation)


def _move_aliases(client: "MlflowClient", evaluation: Evaluation) -> None:
    before, after = evaluation.champion.version_before, evaluation.champion.version_after
    challenger = next((model.version for model in evaluation.models if model.alias == "challenger"), None)
    # Where the champion stays, its alias is left alone: somebody may have moved it meanwhile.
    promote(client, evaluation.champion.registered_model, None if after == before else after, challenger)


def _tags(evaluation: Evaluation, model: EvaluatedModel) -> dict[str, str]:
    """Return the tags of an evaluated version."""
    scores = {metric.name: model.value(metric.name) for metric in METRICS.values() if metric.tagged}
    return {
        "gates": "; ".join(model.failed_gates) or "passed",
        "promotion": model.reason,
        "evaluation_run": evaluation.run,
        **{name: f"{value:.6g}" for name, value in scores.items() if value is not None},
    }
