"""Run the steps as child runs of `main`: reuse finished runs, start the other steps, and leave no run open."""

import contextlib
import itertools
import os
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from steps.common.errors import Rejected, StepError
from steps.project.mlproject import ROOT
from steps.project.plan import PLAN
from steps.runs.cleanup import children, close_children
from steps.runs.console import step_line
from steps.runs.reuse import find_finished, fingerprint
from steps.runs.step import Step
from steps.runs.tags import ENTRY_POINT_TAG, ERROR_TAG, MODEL_URI_TAG, REJECTED_TAG, SUMMARY_TAG

if TYPE_CHECKING:
    from mlflow.entities import Run


class DoneStep(NamedTuple):
    """A step of the pipeline that has a run with results: its entry point, the run, and whether the run was reused."""

    entry_point: str
    run: "Run"
    reused: bool


class Pipeline:
    """The steps of one `main` run. `done` lists them in the order in which they ended."""

    def __init__(self, main: Step, wanted: Iterable[str], reuse: bool) -> None:
        """
        Args:
            main: the open run of `main`.
            wanted: the entry points that may be run. Any other entry point is only reused.
            reuse: whether a finished run of a wanted entry point is reused.
        """
        self._main = main
        self._wanted = frozenset(wanted)
        self._reuse = reuse
        self.done: list[DoneStep] = []

    def run(self, entry_point: str, params: dict[str, str]) -> "Run":
        """Return a finished run of a step with these parameters: an earlier run that is equal, or a new run.

        Raises:
            StepError: the step failed; or it is not wanted and has no finished run.
            Rejected: the step failed by its verdict. Its run is in `done`.
        """
        wanted = entry_point in self._wanted
        if self._reuse or not wanted:
            client, experiment_id = self._main.client, self._main.run.info.experiment_id
            run = find_finished(client, experiment_id, entry_point, fingerprint(client, entry_point, params))
            if run:
                return self._record(entry_point, run, None)
        if not wanted:
            raise StepError(
                f"steps leaves out {entry_point}, and there is no finished run of {entry_point} with these parameters, "
                f"this code and this environment: add it (-P steps={entry_point},...), or use -P steps=all"
            )
        started = time.monotonic()
        run = self._start(entry_point, params)
        return self._record(entry_point, run, time.monotonic() - started)

    def _record(self, entry_point: str, run: "Run", seconds: float | None) -> "Run":
        """Add a run to `done`, and tell the user; `seconds` is None for a reused run."""
        took = "reused" if seconds is None else f"{seconds:.1f} s"
        self._main.console.line(step_line(entry_point, took, run.info.run_id, run.data.tags.get(SUMMARY_TAG, "")))
        self.done.append(DoneStep(entry_point, run, seconds is None))
        return run

    def _start(self, entry_point: str, params: dict[str, str]) -> "Run":
        """Run a step in a process of its own, and wait until it has ended."""
        import mlflow
        from mlflow.exceptions import ExecutionException

        for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):  # if a user exports them, nested runs fail
            os.environ.pop(name, None)
        try:
            with contextlib.ExitStack() as unless_finished:
                unless_finished.callback(close_children, self._main.client, self._main.run)
                # If a signal comes just after the start of a process, MLflow does not know the process yet.
                unless_finished.callback(_end_child_processes)
                submitted = mlflow.run(
                    str(ROOT),
                    entry_point,
                    parameters=params,
                    experiment_id=self._main.run.info.experiment_id,
                    env_manager="local",  # this process's environment; else a nested run builds its own
                    run_name=entry_point,
                    storage_dir=str(self._main.scratch),
                )
                unless_finished.pop_all()
        except ExecutionException as error:
            raise self._failure(entry_point, error) from None
        return self._main.client.get_run(submitted.run_id)

    def _failure(self, entry_point: str, error: Exception) -> StepError:
        """Return the error for a step whose process failed; add the run of a rejected step to `done`."""
        run = self._failed_run(entry_point)
        if not run:
            return StepError(f"{entry_point} could not be started: {' '.join(str(error).split())}")
        cause = run.data.tags.get(
            ERROR_TAG, "its process ended without an error message: it was killed, or it ran out of memory"
        )
        if REJECTED_TAG in run.data.tags:
            self.done.append(DoneStep(entry_point, run, False))
            return Rejected(f"{entry_point}: {cause}")
        return StepError(f"{entry_point} failed (run {run.info.run_id}): {cause}")

    def _failed_run(self, entry_point: str) -> "Run | None":
        """Return the latest child run of the entry point that did not finish."""
        for run in children(self._main.client, self._main.run):
            if run.info.status != "FINISHED" and run.data.tags.get(ENTRY_POINT_TAG) == entry_point:
                return run
        return None


def step_inputs(name: str, runs: dict[str, list["Run"]]) -> list[dict[str, str]]:
    """Return the parameters that hand upstream runs to a step, one dictionary for each combination of runs."""
    planned = PLAN[name]
    models = {}
    if planned.models_of:
        uris = [run.data.tags[MODEL_URI_TAG] for upstream in planned.models_of for run in runs[upstream]]
        models["models"] = ",".join(uris)
    upstream_runs = [runs[upstream] for upstream in planned.run_parameters.values()]
    return [
        models | {key: run.info.run_id for key, run in zip(planned.run_parameters, combination, strict=True)}
        for combination in itertools.product(*upstream_runs)
    ]


def _end_child_processes() -> None:
    """Ask every process that this process started to end; kill those that still run after 30 seconds."""
    import psutil

    processes = psutil.Process().children(recursive=True)
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    for process in psutil.wait_procs(processes, timeout=30)[1]:
        process.kill()
