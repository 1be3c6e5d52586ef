"""The other end of worker.py: a model in a process of its own."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from steps.common.errors import StepError

_WORKER = Path(__file__).with_name("worker.py")


class ModelProcess:
    """Calls to one worker; from any thread, one at a time. A context manager, whose end is the process's."""

    def __init__(self, name: str, scratch: Path) -> None:
        """
        Args:
            name: of the model, for errors.
        """
        self.name = name
        self._folder = scratch / uuid.uuid4().hex
        self._folder.mkdir()
        self._lock = threading.Lock()
        reader, writer = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_WORKER), str(writer)],
            pass_fds=(writer,),
            cwd=self._folder,
            # Its temporary files go with its folder; the model's code may lie in the artifact store, so no bytecode.
            env=os.environ | {"TMPDIR": str(self._folder), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            text=True,
        )
        os.close(writer)
        self._answers = os.fdopen(reader, encoding="utf-8")

    def call(self, do: str, progress: Callable[[], object] = lambda: None, **arguments: Any) -> Any:
        """The result of a method of worker.Worker.

        Raises:
            StepError: it failed, or the process ended.
        """
        with self._lock:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
                self._process.stdin.flush()
            for line in self._answers:
                content = json.loads(line)
                if "progress" in content:
                    progress()
                elif "error" in content:
                    raise StepError(f"{self.name} could not be evaluated: {content['error']}")
                else:
                    return content["result"]
            raise StepError(
                f"{self.name} could not be evaluated: its process ended with {_exit_text(self._process.wait())}"
            )

    def close(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._answers.close()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> "ModelProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _exit_text(code: int) -> str:
    if code == -signal.SIGKILL:
        return "signal 9 (killed: the machine may be out of memory)"
    return f"signal {-code}" if code < 0 else f"exit code {code}"
