"""Close the run of a step, in this process, whatever happened to its work.

Invariant: a run ends FINISHED with all of its results, or FAILED or KILLED with the cause and without results.

    what happened                          who closes       status    exit code
    the work returned                      close_finished   FINISHED  0
    the work raised an error               close_failed     FAILED    1
    Ctrl-C, SIGTERM or SIGHUP came         close_failed     KILLED    130
    the process was killed, or it lost     cleanup.py, in   FAILED    -
    the tracking server                    the next run on
                                           this machine

Signals are ignored while a run is closed, because half a close would leave a run RUNNING or with results.
"""

import shutil
import traceback
from collections.abc import Callable
from pathlib import Path

from steps.common.errors import Rejected
from steps.runs import signals
from steps.runs.cleanup import LOGS, discard_results
from steps.runs.failures import is_for_the_user, one_line
from steps.runs.redaction import redact
from steps.runs.step import Step
from steps.runs.tags import ERROR_TAG, FINGERPRINT_TAG, MAX_TAG, REJECTED_TAG

INTERRUPTED = 130  # exit code: 128 + SIGINT, as shells report it


def close_finished(step: Step, log: Path, fingerprint: str) -> None:
    """End the run as FINISHED, with its fingerprint and the captured output.

    Args:
        log: the file with the captured output.
        fingerprint: what later runs compare theirs with, to reuse this run.

    Raises:
        KeyboardInterrupt: a signal came during the work, and a library swallowed the exception.
    """
    import mlflow

    signals.check()
    signals.ignore()
    step.tag(**{FINGERPRINT_TAG: fingerprint})
    _log_output(step, log)
    mlflow.end_run()


def close_failed(step: Step, error: BaseException, log: Path) -> int:
    """End the run as FAILED or KILLED: record the cause, discard the results, and tell the user.

    A child of `main` tells the user nothing, because `main` does, unless the cause could not be recorded.

    Returns:
        The exit code of the process.
    """
    import mlflow

    signals.ignore()
    # Some libraries catch KeyboardInterrupt and raise an error of their own, so the signal itself counts, too.
    killed = isinstance(error, KeyboardInterrupt) or signals.asked()
    cause = "interrupted" if killed else one_line(error)
    _empty(step.scratch)  # on a full disk, this makes room to record the failure
    problem = _first_problem(
        lambda: _record_failure(step, error, cause, log),
        lambda: mlflow.end_run("KILLED" if killed else "FAILED"),
    )
    if problem:
        reason = "" if problem == cause else f" ({problem})"
        cause += f"; this could not be recorded{reason}, so the next run on this machine closes this one"
    if problem or not step.parent_run_id:
        step.console.error(f"{step.entry_point}: {cause}")
        if not killed and not is_for_the_user(error):
            step.console.error(f"traceback: artifact {LOGS}/traceback.txt of run {step.run_id}")
    return INTERRUPTED if killed else 1


def _first_problem(*actions: Callable[[], object]) -> str:
    """Do every action, even if an earlier one fails; return the cause of the first failure, empty if all succeed."""
    problems = []
    for action in actions:
        try:
            action()
        except Exception as error:
            problems.append(one_line(error))
    return problems[0] if problems else ""


def _record_failure(step: Step, error: BaseException, cause: str, log: Path) -> None:
    """Record the cause and the captured output on the run.

    A rejected run keeps its results, which are the evidence. Any other run gets the traceback and loses its results.
    """
    step.tag(**{ERROR_TAG: cause[:MAX_TAG]})
    _log_output(step, log)
    if isinstance(error, Rejected):
        step.tag(**{REJECTED_TAG: "true"})
        return
    trace = "".join(traceback.format_exception(error))
    step.client.log_text(step.run_id, redact(trace), f"{LOGS}/traceback.txt")
    discard_results(step.client, step.run)


def _log_output(step: Step, log: Path) -> None:
    """Log the captured output without secrets."""
    copy = step.scratch / log.name
    copy.write_text(redact(log.read_text(encoding="utf-8", errors="replace")), encoding="utf-8")
    step.client.log_artifact(step.run_id, str(copy), LOGS)


def _empty(folder: Path) -> None:
    """Delete everything in a folder."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
