"""Threads for what blocks.

They are kept for the next request: to start a thread makes its starter wait until the thread runs, and the event loop
would keep all streams waiting meanwhile. They are daemons, because some models can't be stopped, and the process must
end all the same.
"""

import contextvars
import queue
import threading
from collections.abc import Callable

_KEPT = 32  # threads that may wait for work


class Threads:
    """Runs functions, each in a thread at once. Any thread may ask for it."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock, self._free = threading.Lock(), 0  # threads that wait, without those that have work in the queue

    def run(self, function: Callable[[], None]) -> None:
        """Run a function that raises nothing."""
        with self._lock:
            reuse = self._free > 0
            self._free -= reuse
        self._work.put(function)
        if not reuse:
            threading.Thread(target=self._serve, name="serving", daemon=True).start()

    def _serve(self) -> None:
        while True:
            contextvars.Context().run(self._work.get())  # a context as empty as that of a new thread
            with self._lock:
                if self._free >= _KEPT:
                    return
                self._free += 1


THREADS = Threads()  # of the process
