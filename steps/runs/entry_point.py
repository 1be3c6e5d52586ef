"""Run an entry point as a tracked run: open the run, check the parameters, do the work, close the run.

Every entry point of MLproject but `test` starts here. `closing.py` says how a run ends, after Ctrl-C too.
"""

import contextlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from steps.project.mlproject import parse_parameters
from steps.runs import signals
from steps.runs.cleanup import claim, close_abandoned
from steps.runs.closing import INTERRUPTED, close_failed, close_finished
from steps.runs.console import Console, captured_output, step_line
from steps.runs.failures import one_line
from steps.runs.redaction import clean_tags
from steps.runs.reuse import fingerprint
from steps.runs.step import Step
from steps.runs.tags import ENTRY_POINT_TAG, NAME_TAG, SUMMARY_TAG

_RANDOM_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")  # MLflow's name for a run that the user gave no name

Params = dict[str, str]


@dataclass(frozen=True)
class _EntryPoint:
    """The name of an entry point, and the three functions that its module defines for it."""

    name: str
    work: Callable[..., None]
    check: Callable[[Params], None]
    resolve: Callable[[Params], Params]


def run_entry_point(
    name: str,
    work: Callable[..., None],
    check: Callable[[Params], None],
    resolve: Callable[[Params], Params] = lambda params: params,
) -> None:
    """Run an entry point as a tracked run, and exit the process with its exit code.

    Args:
        name: its name in MLproject.
        work: called with the open Step, and with the parameters by name.
        check: raises StepError for parameters that can be known to be wrong before any work.
        resolve: replaces names that may change their meaning, such as a branch or an alias, by fixed names.
    """
    signals.listen()
    with captured_output() as (console, log):
        try:
            code = _run(_EntryPoint(name, work, check, resolve), console, log)
        except KeyboardInterrupt:  # before the run was open
            console.error(f"{name}: interrupted")
            code = INTERRUPTED
        except Exception as error:  # the run could not be opened
            console.error(f"{name}: {one_line(error)}")
            code = 1
    sys.exit(code)


def _run(entry_point: _EntryPoint, console: Console, log: Path) -> int:
    """Open the run, work in it and close it; return the exit code of the process."""
    started = time.monotonic()
    with _scratch_folder() as scratch:
        step = _open(entry_point.name, console, scratch)
        try:
            _prepare(step, entry_point)
            # Taken before the work: a file that somebody edits during the work has no part in the result.
            identity = fingerprint(step.client, step.entry_point, step.params)
            entry_point.work(step, **step.params)
            close_finished(step, log, identity)
        except BaseException as error:
            return close_failed(step, error, log)
        if not step.parent_run_id:
            summary = step.client.get_run(step.run_id).data.tags.get(SUMMARY_TAG, "")
            console.line(step_line(step.entry_point, f"{time.monotonic() - started:.1f} s", step.run_id, summary))
    return 0


@contextlib.contextmanager
def _scratch_folder() -> Iterator[Path]:
    """Make the default folder for temporary files of this process and its children; remove it at the end.

    Libraries, MLflow's downloads and child processes write temporary files, and most of them take no folder as an
    argument. So the process-wide default is changed: it is the one setting that all of them follow.
    """
    with tempfile.TemporaryDirectory(prefix="phi-mlflow-") as folder:
        tempfile.tempdir = os.environ["TMPDIR"] = folder
        try:
            yield Path(folder)
        finally:
            tempfile.tempdir = None


def _open(name: str, console: Console, scratch: Path) -> Step:
    """Open the run that `mlflow run` created for this process, or a new run."""
    import mlflow

    _use_absolute_store()
    return Step(name, mlflow.start_run(), console, scratch)


def _use_absolute_store() -> None:
    """Make a relative SQLite address absolute. A child process in another folder would read it as another file."""
    import mlflow

    uri = mlflow.get_tracking_uri()
    path = uri.removeprefix("sqlite:///")
    if path != uri and not os.path.isabs(path):
        mlflow.set_tracking_uri(f"sqlite:///{os.path.abspath(path)}")
    os.environ["MLFLOW_TRACKING_URI"] = mlflow.get_tracking_uri()  # MLflow's default also depends on the folder


def _prepare(step: Step, entry_point: _EntryPoint) -> None:
    """Mark the run as this process's, close runs that dead processes left, and check the parameters."""
    _name_run(step)
    clean_tags(step.client, step.run)
    claim(step.client, step.run)
    if not step.parent_run_id:
        close_abandoned(step.client, step.run.info.experiment_id)
    step.params = parse_parameters(step.entry_point, sys.argv[1:])
    entry_point.check(step.params)
    step.params = entry_point.resolve(step.params)


def _name_run(step: Step) -> None:
    """Name the run after its entry point, unless the user gave it a name."""
    if _RANDOM_NAME.fullmatch(step.run.info.run_name or ""):
        step.tag(**{NAME_TAG: step.entry_point})
    if ENTRY_POINT_TAG not in step.run.data.tags:  # started as a module, not by `mlflow run`
        step.tag(**{ENTRY_POINT_TAG: step.entry_point})
