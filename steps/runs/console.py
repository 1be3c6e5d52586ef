"""What a person sees of a step: its own few lines, and a progress line while it works.

Everything else that is printed, by Python or by native libraries, goes to a log file that becomes the run's artifact.
"""

import contextlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from steps.runs import signals as stopping
from steps.runs.redaction import redact

_TERMINAL = "PHI_MLFLOW_TERMINAL"  # the terminal of the outermost step, for the progress of the ones that it starts


class Console:
    """Lines to the terminal's stdout, progress to its stderr; progress is silent when that is not a terminal."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        self._err = os.fdopen(os.dup(2), "w", encoding="utf-8")
        if self._err.isatty():
            os.environ[_TERMINAL] = os.ttyname(self._err.fileno())
        elif _TERMINAL in os.environ:  # a child of main, whose own output goes to main's log
            with contextlib.suppress(OSError):  # the terminal may be gone
                self._err = open(os.environ[_TERMINAL], "w", encoding="utf-8")  # noqa: SIM115 - open as long as this is
        self._shows_progress = self._err.isatty()

    def line(self, text: str) -> None:
        """One line on stdout."""
        print(redact(text), file=self._out, flush=True)

    def error(self, text: str) -> None:
        """Lines on stderr."""
        print(redact(text), file=self._err, flush=True)

    @contextlib.contextmanager
    def phase(self, text: str) -> Iterator[None]:
        """Show `text` with the seconds that it has taken while the block runs; not begun once the step was stopped."""
        stopping.check()
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
        """tqdm bound to this terminal, for libraries that take a bar class and for loops of our own."""
        stream, disabled = self._err, not self._shows_progress

        class Bar(tqdm):
            def __init__(self, *args, **kwargs) -> None:
                kwargs.pop("name", None)  # huggingface_hub's group name, which plain tqdm does not know
                kwargs.update(file=stream, leave=False, disable=disabled or kwargs.get("disable", False))
                super().__init__(*args, **kwargs)

        return Bar


@contextlib.contextmanager
def captured_output() -> Iterator[tuple[Console, Path]]:
    """Send file descriptors 1 and 2 to a log file; yield the console and that file. Restores both at the end."""
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
