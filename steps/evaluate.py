"""evaluate: model URIs and a fetch_model run -> a run that holds metrics per model, `report.html`, `evaluation.json`.

With a registered model, its versions get their verdicts as tags, and the alias `champion` moves if the evidence
says so. The run fails, but keeps what it logged, if none of the given models passes every gate.
"""

import shlex

from steps.common.errors import Rejected
from steps.common.packages import RUNTIMES, installed_versions
from steps.evaluation.assembly import Findings, Interview, Origins, assemble
from steps.evaluation.measure.machine import describe_machine
from steps.evaluation.measure.measuring import (
    Ask,
    Checkpoint,
    Models,
    measure_models,
    measure_reference,
    progress_calls,
)
from steps.evaluation.measure.model_process import Answer
from steps.evaluation.recording.answers import Questionnaire, ask_through_mlflow, import_early
from steps.evaluation.recording.record import log_evaluation, record_versions, summary_line
from steps.evaluation.recording.subjects import find_subjects
from steps.evaluation.report.summary_page import markdown
from steps.evaluation.request import Request, read_request
from steps.evaluation.results import Evaluation
from steps.evaluation.subject import Subject
from steps.project.mlproject import ROOT
from steps.registry.aliases import has_aliases
from steps.registry.names import with_full_name
from steps.runs.artifacts import check_run_id
from steps.runs.checkpoint_input import verified_checkpoint
from steps.runs.entry_point import run_entry_point
from steps.runs.step import Step

_PACKAGES = ("mlflow", "torch", "transformers", *RUNTIMES)
_BAR = "{desc} {percentage:3.0f}%|{bar}| {elapsed}"


def check(params: dict[str, str]) -> None:
    """Raise StepError if a parameter or a file that it names is wrong, before any model is loaded."""
    check_run_id("reference_run", params["reference_run"])
    read_request(with_full_name(params), ROOT)


def evaluate(step: Step, **params: str) -> None:
    """Measure each model and PyTorch; compare, judge, record, promote.

    Raises:
        Rejected: none of the given models passes every gate.
    """
    request = read_request(params, ROOT)
    subjects = find_subjects(step.client, request.models, request.registered_model)
    checkpoint = verified_checkpoint(step, "reference_run", params["reference_run"])
    reference = Checkpoint(checkpoint.folder, checkpoint.manifest.origin.name)
    findings = _measure(step, request, subjects, reference)
    for reason in findings.measurements.failures.values():
        step.console.error(f"evaluate: the present champion is left out of the comparison: {reason}")
    origins = Origins(
        run_id=step.run_id,
        checkpoint=checkpoint.manifest,
        command=_command(params),
        has_aliases=bool(request.registered_model) and has_aliases(step.client, request.registered_model),
    )
    evaluation = assemble(request, origins, findings)
    log_evaluation(step.client, evaluation, request.questions, findings, step.scratch)
    step.tag(champion=evaluation.champion.label or "none")
    step.summarise(summary_line(evaluation), markdown(evaluation))
    record_versions(step.client, evaluation)  # last, when the evidence is recorded
    if evaluation.is_rejection:
        raise Rejected(_rejection(evaluation))


def _measure(step: Step, request: Request, subjects: tuple[Subject, ...], checkpoint: Checkpoint) -> Findings:
    """Measure the machine, the reference and the models, with progress on the console."""
    machine = describe_machine(installed_versions(_PACKAGES))
    import_early()
    uris = {subject.label: subject.uri for subject in subjects}
    model_ids = {subject.label: subject.model_id for subject in subjects}
    optional = [subject.label for subject in subjects if not subject.given]
    total = progress_calls(request.effort, len(request.questions), len(subjects))
    interviews: dict[str, Interview] = {}
    with (
        step.console.bar_class()(total=total, desc="evaluating", bar_format=_BAR) as bar,
        Models(uris, optional, step.scratch) as models,
    ):
        reference = measure_reference(
            checkpoint, request.questions, request.text.content, request.effort, step.scratch, bar.update
        )
        experiment_id = step.run.info.experiment_id
        questionnaire = Questionnaire(request.questions, reference.answers, request.judge, experiment_id)

        def interview(label: str, ask: Ask) -> list[Answer]:
            answers, interviews[label] = ask_through_mlflow(questionnaire, label, model_ids[label], ask, bar.update)
            return answers

        measurements = measure_models(models, reference, request.effort, interview, bar.update)
    return Findings(subjects, reference, measurements, interviews, machine)


def _command(params: dict[str, str]) -> str:
    """Return the command that evaluates again."""
    arguments = " ".join(f"-P {name}={shlex.quote(value)}" for name, value in params.items() if value)
    return f"mlflow run . -e evaluate {arguments}"


def _rejection(evaluation: Evaluation) -> str:
    """Return why no model is good enough, in a line."""
    reasons = "; ".join(f"{model.label}: {', '.join(model.failed_gates)}" for model in evaluation.given_models)
    return f"no model passes every gate of {evaluation.gates.path} ({reasons}): see report.html of run {evaluation.run}"


if __name__ == "__main__":
    run_entry_point("evaluate", evaluate, check, with_full_name)
