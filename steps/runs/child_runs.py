"""Run the steps as child runs of `main`: reuse what is finished, start the rest, and leave no run open."""

import contextlib
import os
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from steps.common.errors import Rejected, StepError
from steps.project.mlproject import ROOT
from steps.runs.cleanup import children, close_children
from steps.runs.reuse import find_finished, fingerprint
from steps.runs.step import Step, step_line
from steps.runs.tags import ENTRY_POINT_TAG, ERROR_TAG, REJECTED_TAG, SUMMARY_TAG

if TYPE_CHECKING:
    from mlflow.entities import Run


def _end_child_processes() -> None:
    """Ask the processes that this one started to end, and wait; kill what has not ended after half a minute."""
    import psutil

    children = psutil.Process().children(recursive=True)
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.terminate()
    for child in psutil.wait_procs(children, timeout=30)[1]:
        child.kill()


class Pipeline:
    """The steps of one `main` run, in order; `done` holds (entry point, run, whether it was reused)."""

    def __init__(self, step: Step, wanted: Iterable[str], reuse: bool) -> None:
        """
        Args:
            step: the open run of main.
            wanted: the entry points that may be run; the others are only ever reused.
            reuse: whether finished runs count at all for the wanted ones.
        """
        self._main = step
        self._wanted = frozenset(wanted)
        self._reuse = reuse
        self.done: list[tuple[str, Run, bool]] = []

    def run(self, entry_point: str, params: dict[str, str]) -> "Run":
        """The finished run of a step with these parameters, an earlier one where it will do.

        Raises:
            StepError: the step failed, or it is not wanted and has no finished run.
            Rejected: it failed by its verdict; its run is in `done`.
        """
        wanted = entry_point in self._wanted
        client, experiment = self._main.client, self._main.run.info.experiment_id
        if self._reuse or not wanted:
            found = find_finished(client, experiment, entry_point, fingerprint(client, entry_point, params))
            if found:
                return self._record(entry_point, found, None)
        if not wanted:
            raise StepError(
                f"steps leaves out {entry_point}, which has no finished run with these parameters, code and "
                f"environment: add it (-P steps={entry_point},...), or leave steps at all"
            )
        started = time.monotonic()
        run = self._start(entry_point, params)
        return self._record(entry_point, run, time.monotonic() - started)

    def _record(self, entry_point: str, run: "Run", seconds: float | None) -> "Run":
        took = "reused" if seconds is None else f"{seconds:.1f} s"
        self._main.console.line(step_line(entry_point, took, run.info.run_id, run.data.tags.get(SUMMARY_TAG, "")))
        self.done.append((entry_point, run, seconds is None))
        return run

    def _start(self, entry_point: str, params: dict[str, str]) -> "Run":
        import mlflow
        from mlflow.exceptions import ExecutionException

        for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):  # exported by a user, they break nested runs
            os.environ.pop(name, None)
        try:
            with contextlib.ExitStack() as unless_finished:
                unless_finished.callback(close_children, self._main.client, self._main.run)
                # A signal just after the start of a process finds MLflow without a hold on it.
                unless_finished.callback(_end_child_processes)
                submitted = mlflow.run(
                    str(ROOT),
                    entry_point,
                    parameters=params,
                    experiment_id=self._main.run.info.experiment_id,
                    env_manager="local",  # this process's environment; a nested run would build its own
                    run_name=entry_point,
                    storage_dir=str(self._main.scratch),
                )
                unless_finished.pop_all()
        except ExecutionException as error:
            child = self._failed(entry_point)
            if not child:
                raise StepError(f"{entry_point} could not be started: {' '.join(str(error).split())}") from None
            cause = child.data.tags.get(ERROR_TAG, "its process ended without a word: killed, or out of memory")
            if REJECTED_TAG in child.data.tags:
                self.done.append((entry_point, child, False))
                raise Rejected(f"{entry_point}: {cause}") from None
            raise StepError(f"{entry_point} failed (run {child.info.run_id}): {cause}") from None
        return self._main.client.get_run(submitted.run_id)

    def _failed(self, entry_point: str) -> "Run | None":
        """The latest child of the entry point, if it did not finish."""
        latest = (run for run in children(self._main.client, self._main.run) if run.info.status != "FINISHED")
        return next((run for run in latest if run.data.tags.get(ENTRY_POINT_TAG) == entry_point), None)
