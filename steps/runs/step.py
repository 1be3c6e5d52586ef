"""The life of one step's run: opened, worked in, and always closed.

A run ends FINISHED with its artifacts whole; or FAILED or KILLED with the cause as its tag `error`, the traceback in
`logs/traceback.txt`, and nothing else logged that a later step could take for a result.
"""

import json
import os
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steps.common.errors import Rejected
from steps.project.mlproject import parse_parameters
from steps.runs import signals as stopping
from steps.runs.cleanup import LOGS, claim, close_abandoned, discard_results
from steps.runs.console import Console, captured_output
from steps.runs.failures import is_for_the_user, one_line
from steps.runs.redaction import clean_tags, redact
from steps.runs.reuse import fingerprint
from steps.runs.tags import (
    ENTRY_POINT_TAG,
    ERROR_TAG,
    FINGERPRINT_TAG,
    NAME_TAG,
    NOTE_TAG,
    PARENT_TAG,
    REJECTED_TAG,
    SUMMARY_TAG,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_RANDOM_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")  # what MLflow calls a run that was given no name


class Step:
    """An open run of one entry point: its parameters, its console, a scratch folder, and the ways to log to it."""

    def __init__(self, entry_point: str, params: dict[str, str], run: "Run", console: Console, scratch: Path) -> None:
        import mlflow

        self.entry_point = entry_point
        self.params = params
        self.run = run
        self.run_id = run.info.run_id
        self.client: MlflowClient = mlflow.MlflowClient()
        self.console = console
        self.scratch = scratch

    @property
    def parent_run_id(self) -> str | None:
        """The `main` run that started this one, or None when the step runs alone."""
        return self.run.data.tags.get(PARENT_TAG)

    def tag(self, **tags: str) -> None:
        """Set tags of the run."""
        for key, value in tags.items():
            self.client.set_tag(self.run_id, key, value)

    def summarise(self, line: str, description: str = "") -> None:
        """What the run came to: one line for terminals and lists, Markdown for the run's page."""
        self.tag(**{SUMMARY_TAG: line, NOTE_TAG: description or line})

    def log_json(self, content: Any, path: str) -> None:
        """Log `content` as an indented JSON artifact."""
        self.client.log_text(self.run_id, json.dumps(content, indent=2, ensure_ascii=False) + "\n", path)


Params = dict[str, str]


def run_entry_point(
    entry_point: str,
    work: Callable[..., None],
    check: Callable[[Params], None],
    resolve: Callable[[Params], Params] = lambda params: params,
) -> None:
    """Run one entry point as a tracked run and exit the process with its code.

    Args:
        entry_point: its name in MLproject.
        work: called with the open Step and the parameters by name.
        check: refuses parameter values that can be known to be wrong before any work.
        resolve: pins parameters that name something which may change, such as a branch.
    """
    stopping.listen()
    with captured_output() as (console, log):
        try:
            code = _run(entry_point, work, check, resolve, console, log)
        except KeyboardInterrupt:
            console.error(f"{entry_point}: interrupted")
            code = 130
        except Exception as error:  # the run could not be opened
            console.error(f"{entry_point}: {one_line(error)}")
            code = 1
    sys.exit(code)


def _run(entry_point, work, check, resolve, console: Console, log: Path) -> int:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="phi-mlflow-") as scratch:
        # Libraries, MLflow's downloads and child processes put their temporary files where they are removed with ours.
        tempfile.tempdir = os.environ["TMPDIR"] = scratch
        try:
            import mlflow

            _use_absolute_store()
            run = mlflow.start_run()  # the one that `mlflow run` created: MLFLOW_RUN_ID names it
            step = Step(entry_point, {}, run, console, Path(scratch))
            try:
                _name_run(step)
                clean_tags(step.client, run)
                claim(step.client, run)
                if not step.parent_run_id:
                    close_abandoned(step.client, run.info.experiment_id)
                step.params = parse_parameters(entry_point, sys.argv[1:])
                check(step.params)
                step.params = resolve(step.params)
                # Taken before the work: what is edited meanwhile did not do it.
                identity = fingerprint(step.client, entry_point, step.params)
                work(step, **step.params)
                stopping.check()
                stopping.ignore()  # from here on it is finished
                step.tag(**{FINGERPRINT_TAG: identity})
                step.client.log_artifact(step.run_id, str(_redacted(log, Path(scratch))), LOGS)
                mlflow.end_run()
            except BaseException as error:
                stopping.ignore()
                killed = isinstance(error, KeyboardInterrupt) or stopping.asked()  # libraries raise theirs instead
                cause = "interrupted" if killed else one_line(error)
                _empty(Path(scratch))  # makes room to record the failure where the disk is full
                status, keep = "KILLED" if killed else "FAILED", isinstance(error, Rejected)
                problem = _close(step, status, cause, traceback.format_exc(), log, keep)
                if problem:
                    cause += f"; it could not be recorded{'' if problem == cause else f' ({problem})'}, and the next "
                    cause += "run on this machine closes this one"
                if problem or not step.parent_run_id:
                    console.error(f"{entry_point}: {cause}")
                    if not killed and not is_for_the_user(error):
                        console.error(f"traceback: artifact {LOGS}/traceback.txt of run {step.run_id}")
                return 130 if killed else 1
            if not step.parent_run_id:
                summary = step.client.get_run(step.run_id).data.tags.get(SUMMARY_TAG, "")
                console.line(step_line(entry_point, f"{time.monotonic() - started:.1f} s", step.run_id, summary))
            return 0
        finally:
            tempfile.tempdir = None


def _use_absolute_store() -> None:
    """A relative SQLite address would mean another file in a child process that runs in another folder."""
    import mlflow

    uri = mlflow.get_tracking_uri()
    path = uri.removeprefix("sqlite:///")
    if path != uri and not os.path.isabs(path):
        mlflow.set_tracking_uri(f"sqlite:///{os.path.abspath(path)}")
    os.environ["MLFLOW_TRACKING_URI"] = mlflow.get_tracking_uri()  # MLflow's own default is the folder's, too


def step_line(entry_point: str, took: str, run_id: str, summary: str) -> str:
    """The line that a person reads when a step has ended; the run ID is whole, to be given to the next step."""
    return f"{entry_point:<17}{took:>8}  {run_id}  {summary}"


def _name_run(step: Step) -> None:
    """Make the run findable: it gets its entry point's name unless somebody gave it one."""
    if _RANDOM_NAME.fullmatch(step.run.info.run_name or ""):
        step.tag(**{NAME_TAG: step.entry_point})
    if ENTRY_POINT_TAG not in step.run.data.tags:  # started as a module, not by `mlflow run`
        step.tag(**{ENTRY_POINT_TAG: step.entry_point})


def _close(step: Step, status: str, cause: str, trace: str, log: Path, keep: bool) -> str:
    """Record a failure and end the run; why that could not be done, if so."""
    import mlflow

    problems = []
    for act in (lambda: _record_failure(step, cause, trace, log, keep), lambda: mlflow.end_run(status)):
        try:
            act()
        except Exception as error:
            problems.append(one_line(error))
    return problems[0] if problems else ""


def _record_failure(step: Step, cause: str, trace: str, log: Path, keep: bool) -> None:
    """Leave the cause, the traceback and the log on the run, and take back what was logged as a result, or keep it."""
    step.tag(**{ERROR_TAG: cause[:5000]})
    step.client.log_artifact(step.run_id, str(_redacted(log, step.scratch)), LOGS)
    if keep:
        step.tag(**{REJECTED_TAG: "true"})
        return
    step.client.log_text(step.run_id, redact(trace), f"{LOGS}/traceback.txt")
    discard_results(step.client, step.run)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _redacted(log: Path, scratch: Path) -> Path:
    copy = scratch / log.name
    copy.write_text(redact(log.read_text(encoding="utf-8", errors="replace")), encoding="utf-8")
    return copy
