"""main: a profile -> the whole pipeline, each step a child run; the comparison and the champion on this run's page."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from steps import convert_onnx, evaluate, fetch_model, wrap_custom, wrap_transformer
from steps.common.errors import Rejected, one_of
from steps.evaluation.recording.run_page import RunPage
from steps.evaluation.results import Evaluation
from steps.project.plan import PLAN, STEPS, with_upstream
from steps.project.profiles import Section, read_profile
from steps.project.tasks import check_evaluable
from steps.registry.names import ensure_registered_model, with_full_name
from steps.runs.artifacts import read_document
from steps.runs.checkpoint_input import check_tasks
from steps.runs.child_runs import Pipeline, step_inputs
from steps.runs.entry_point import run_entry_point
from steps.runs.step import Step
from steps.runs.tags import EVALUATION

if TYPE_CHECKING:
    from mlflow.entities import Run

_WRAP_STEPS = ("wrap_transformer", "wrap_custom")
_ANY_RUN = "0" * 32  # stands for the run of a step that has not run yet


class _Callbacks(NamedTuple):
    """What a step's module does with its parameters before the step runs."""

    check: Callable[[Section], None]
    resolve: Callable[[Section], Section] = lambda section: section


_CALLBACKS = {
    "fetch_model": _Callbacks(fetch_model.check, fetch_model.resolve),
    "convert_onnx": _Callbacks(convert_onnx.check),
    "wrap_transformer": _Callbacks(wrap_transformer.check, with_full_name),
    "wrap_custom": _Callbacks(wrap_custom.check, with_full_name),
    "evaluate": _Callbacks(evaluate.check, with_full_name),
}


def check(params: dict[str, str]) -> None:
    """Raise StepError if the profile, the list of steps or a step's parameter can't be right. No step has run yet."""
    one_of("reuse", params["reuse"], ("true", "false"))
    wanted, profile = _wanted(params["steps"]), read_profile(params["profile"])
    if "evaluate" in wanted:
        check_evaluable(_tasks(profile, STEPS))
    for name, sections in profile.items():
        placeholders = dict.fromkeys(PLAN[name].run_parameters, _ANY_RUN)
        if PLAN[name].models_of:
            placeholders["models"] = "models:/any"
        for section in sections:
            _CALLBACKS[name].check(section | placeholders)


def main(step: Step, profile: str, steps: str, reuse: str, experiment_note: str) -> None:
    """Fetch, convert, wrap in both ways, evaluate. Whatever happens, this run's page shows the finished steps."""
    sections = read_profile(profile)
    wanted = _wanted(steps)
    pipeline = Pipeline(step, wanted, reuse == "true")
    page = RunPage(step, profile, experiment_note)
    if "convert_onnx" in with_upstream(wanted):  # before the weights are fetched
        sections["fetch_model"] = [fetch_model.resolve_convertible(section) for section in sections["fetch_model"]]
    _ensure_registered_models(step, sections, wanted)
    rejected = None
    try:
        _run_steps(step, pipeline, sections, with_upstream(wanted))
    except Rejected as error:
        rejected = error
    finally:
        page.write(pipeline.done, None)
    if evaluated := next((run for name, run, _ in pipeline.done if name == "evaluate"), None):
        evaluation = read_document(step.client, evaluated.info.run_id, EVALUATION, Evaluation)
        page.log_comparison(evaluation)
        for line in page.closing_lines(evaluation):
            step.console.line(line)
        page.write(pipeline.done, evaluation)
    if rejected:
        raise rejected


def _ensure_registered_models(step: Step, sections: dict[str, list[Section]], wanted: tuple[str, ...]) -> None:
    """Create the registered models first, so that a name that the registry rejects costs no work."""
    for name in _WRAP_STEPS:
        for section in sections[name] if name in wanted else []:
            ensure_registered_model(step.client, step.run_id, with_full_name(section)["registered_model"])


def _wanted(steps: str) -> tuple[str, ...]:
    """Return the steps that the parameter `steps` names."""
    if steps == "all":
        return STEPS
    return tuple(one_of("steps", name.strip(), STEPS) for name in steps.split(","))


def _tasks(sections: dict[str, list[Section]], names: tuple[str, ...]) -> list[str]:
    """Return the tasks of those wrap steps that are in `names`."""
    return [section["task"] for name in _WRAP_STEPS if name in names for section in sections[name]]


def _run_steps(step: Step, pipeline: Pipeline, sections: dict[str, list[Section]], names: tuple[str, ...]) -> None:
    """Run the named steps in the order of the plan, once for each section and each combination of upstream runs."""
    runs: dict[str, list[Run]] = {}
    for name in names:
        runs[name] = [
            pipeline.run(name, inputs | _CALLBACKS[name].resolve(section))
            for inputs in step_inputs(name, runs)
            for section in sections[name]
        ]
        if name == "fetch_model":  # before the long work
            check_tasks(step, runs[name][0].info.run_id, _tasks(sections, names))


if __name__ == "__main__":
    run_entry_point("main", main, check)
