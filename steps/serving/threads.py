"""Threads for what blocks.

A few are kept for the next request: to start a thread makes its starter wait until the thread runs, and the event loop
would keep all streams waiting meanwhile. The thread that worked last works next, because each thread keeps some memory
of the largest request that it had. They are daemons, because some models can't be stopped, and the process must end all
the same.
"""

import contextvars
import queue
import threading
from collections.abc import Callable

_KEPT = 8  # threads that may wait for work


class Threads:
    """Runs functions, each in a thread at once. Any thread may ask for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: list[queue.SimpleQueue[Callable[[], None]]] = []  # of the threads that wait, the last one last

    def run(self, function: Callable[[], None]) -> None:
        """Run a function that raises nothing."""
        with self._lock:
            free = self._free.pop() if self._free else None
        if free:
            free.put(function)
            return
        work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        work.put(function)
        threading.Thread(target=self._serve, args=(work,), name="serving", daemon=True).start()

    def _serve(self, work: queue.SimpleQueue[Callable[[], None]]) -> None:
        while True:
            contextvars.Context().run(work.get())  # a context as empty as that of a new thread
            with self._lock:
                if len(self._free) >= _KEPT:
                    return
                self._free.append(work)


THREADS = Threads()  # of the process
