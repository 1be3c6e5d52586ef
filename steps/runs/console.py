"""What the user sees of a step: a few lines, and a progress line while the step works.

Everything else that Python or a native library prints goes to a log file, which becomes an artifact of the run.
"""

import contextlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from steps.runs import signals
from steps.runs.redaction import redact

_TERMINAL = "PHI_MLFLOW_TERMINAL"  # environment variable: the terminal on which child steps show their progress


class Console:
    """Lines on stdout, errors and progress on stderr. Progress is shown only if stderr is a terminal."""

    def __init__(self) -> None:
        # Copies of the descriptors, because captured_output redirects the originals to the log file.
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        self._err = os.fdopen(os.dup(2), "w", encoding="utf-8")
        if self._err.isatty():
            os.environ[_TERMINAL] = os.ttyname(self._err.fileno())
        elif _TERMINAL in os.environ:  # a child of main: its stderr is main's log file
            with contextlib.suppress(OSError):  # the terminal may be gone
                self._err = open(os.environ[_TERMINAL], "w", encoding="utf-8")  # noqa: SIM115 - stays open as long as the console
        self._shows_progress = self._err.isatty()

    def line(self, text: str) -> None:
        """Print a line on stdout."""
        print(redact(text), file=self._out, flush=True)

    def error(self, text: str) -> None:
        """Print one or more lines on stderr."""
        print(redact(text), file=self._err, flush=True)

    @contextlib.contextmanager
    def phase(self, text: str) -> Iterator[None]:
        """Show `text` and the seconds so far while the block runs.

        Raises:
            KeyboardInterrupt: the user has stopped the step already.
        """
        signals.check()
        if not self._shows_progress:
            yield
            return
        ended = threading.Event()

        def tick() -> None:
            start = time.monotonic()
            while not ended.wait(1.0):
                self._err.write(f"\r\x1b[K{text}  {time.monotonic() - start:.0f} s")
                self._err.flush()

        ticker = threading.Thread(target=tick, daemon=True)
        ticker.start()
        try:
            yield
        finally:
            ended.set()
            ticker.join()
            self._err.write("\r\x1b[K")
            self._err.flush()

    def bar_class(self) -> type[tqdm]:
        """Return a tqdm class that draws on this console, for libraries that take a class and for loops of our own."""
        stream, disabled = self._err, not self._shows_progress

        # A class made here, because huggingface_hub takes a class and constructs it with arguments of its own.
        class Bar(tqdm):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                kwargs.pop("name", None)  # a group name of huggingface_hub, which plain tqdm does not know
                kwargs.update(file=stream, leave=False, disable=disabled or kwargs.get("disable", False))
                super().__init__(*args, **kwargs)

        return Bar


@contextlib.contextmanager
def captured_output() -> Iterator[tuple[Console, Path]]:
    """Send everything that the process prints to a log file while the block runs.

    Native libraries write to the file descriptors 1 and 2, not to sys.stdout. So the descriptors are redirected.

    Yields:
        The console, which still reaches the user, and the log file.
    """
    console = Console()
    with tempfile.TemporaryDirectory(prefix="phi-mlflow-log-") as folder:
        log = Path(folder) / "output.log"
        saved = [os.dup(1), os.dup(2)]
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            for fd in (1, 2):
                os.dup2(target, fd)
            yield console, log
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for fd, original in zip((1, 2), saved, strict=True):
                os.dup2(original, fd)
                os.close(original)
            os.close(target)


def step_line(entry_point: str, took: str, run_id: str, summary: str) -> str:
    """Return the line that tells the user that a step has ended. It has the whole run ID, for use as a parameter."""
    return f"{entry_point:<17}{took:>8}  {run_id}  {summary}"
