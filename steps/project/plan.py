"""The plan of `main`: one table of its steps, in the order in which they run.

Profiles, `main`, reuse and the checks of run IDs all read this table, so a step is described here and nowhere else.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class PlannedStep:
    """One step of the plan."""

    name: str
    """The entry point in MLproject."""
    run_parameters: dict[str, str] = field(default_factory=dict)
    """Parameter -> the step whose finished run it names. `main` fills these in."""
    models_of: tuple[str, ...] = ()
    """The steps whose logged models `main` hands over in the parameter `models`."""
    file_parameters: tuple[str, ...] = ()
    """Parameters that may name a local file or folder. Reuse counts the content, not the name."""
    place_parameters: tuple[str, ...] = ()
    """File parameters that also count by name, because later steps read the files at the same place."""
    results: tuple[str, ...] = ()
    """Artifacts without which a finished run is of no use to later steps."""
    repeatable: bool = False
    """Whether a profile may have a list of sections for the step, each for a run of its own."""
    code: tuple[str, ...] = ()
    """Files and folders that the step runs or copies and does not import, relative to the project's folder."""

    @property
    def needs(self) -> tuple[str, ...]:
        """The steps that must have run before this one."""
        return tuple(dict.fromkeys((*self.run_parameters.values(), *self.models_of)))

    @property
    def handed_over(self) -> tuple[str, ...]:
        """The parameters that `main` fills in."""
        return (*self.run_parameters, *(("models",) if self.models_of else ()))


PLAN: dict[str, PlannedStep] = {
    step.name: step
    for step in (
        PlannedStep(
            "fetch_model",
            file_parameters=("source", "adapter"),
            place_parameters=("source", "adapter"),
            results=("checkpoint/manifest.json",),
        ),
        PlannedStep(
            "convert_onnx",
            run_parameters={"checkpoint_run": "fetch_model"},
            results=("conversion.json", "onnx/genai_config.json"),
            repeatable=True,
        ),
        PlannedStep("wrap_transformer", run_parameters={"checkpoint_run": "fetch_model"}, code=("steps/chat",)),
        PlannedStep("wrap_custom", run_parameters={"onnx_run": "convert_onnx"}, code=("steps/chat",)),
        PlannedStep(
            "evaluate",
            run_parameters={"reference_run": "fetch_model"},
            models_of=("wrap_transformer", "wrap_custom"),
            file_parameters=("evalset", "text", "gates"),
            results=("evaluation.json",),
            code=(
                "steps/evaluation/measure/worker.py",
                "steps/evaluation/report/page.html.j2",
                "steps/evaluation/report/page.css",
            ),
        ),
    )
}
STEPS = tuple(PLAN)
RUN_PARAMETERS: dict[str, str] = {
    parameter: needed for step in PLAN.values() for parameter, needed in step.run_parameters.items()
}


def with_upstream(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the named steps and every step that they need, in the order of the plan."""
    wanted: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        wanted.add(name)
        waiting += PLAN[name].needs
    return tuple(name for name in PLAN if name in wanted)
