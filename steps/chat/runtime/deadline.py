"""Stop a function that runs too long, without stopping other threads.

Chat templates are programs of other people. One that never ends must not keep a thread of the server for ever.
One watchdog thread looks at all calls in progress and raises an exception in the thread of a call that is too late.

Invariant: the exception reaches a thread only inside the call that was too late, and never later code of that thread.
A call is in the dictionary `_running` until somebody pops it, and `dict.pop` is atomic:

    the caller pops its call     the call is in time; the watchdog can no longer find it
    the watchdog pops the call   the call is late; the caller waits for the exception before it goes on

The caller takes no lock after its call has begun. So an exception can never leave a lock locked.
"""

import contextlib
import ctypes
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

Result = TypeVar("Result")

_POLL = 0.1  # seconds between two looks at the calls in progress
_IDLE_POLLS = 20  # looks without any call, after which the watchdog sleeps until the next call


class _Expired(BaseException):
    """What the watchdog raises. It is no Exception, so that no handler inside the call catches it."""


@dataclass(eq=False)
class _Call:
    thread: int
    end: float  # time.monotonic
    fired: bool = False


_running: dict[int, _Call] = {}
_wake = threading.Event()
_start_lock = threading.Lock()
_thread: threading.Thread | None = None


def run_within(seconds: float, function: Callable[[], Result]) -> Result:
    """Return what a function returns.

    A call of C code, such as a large multiplication, is stopped when it returns to Python.

    Raises:
        TimeoutError: it took longer than `seconds`.
    """
    call = _Call(threading.get_ident(), time.monotonic() + seconds)
    key = id(call)
    try:
        _start(key, call)
        result = function()
        _finish(key, call)
    except _Expired:
        raise TimeoutError(f"stopped after {seconds:g} s") from None
    except BaseException:  # KeyboardInterrupt, or what the function raised
        with contextlib.suppress(_Expired):
            _finish(key, call)
        raise
    return result


def _finish(key: int, call: _Call) -> None:
    """Take the call back. If the watchdog was first, wait for its exception."""
    if _running.pop(key, None) is not None:
        return
    while not call.fired:
        time.sleep(0.001)
    time.sleep(0)  # Python raises the exception here at the latest
    raise _Expired  # something inside the function swallowed the exception


def _start(key: int, call: _Call) -> None:
    global _thread
    if _thread is None or not _thread.is_alive():  # not started yet, or lost in a fork
        with _start_lock:
            if _thread is None or not _thread.is_alive():
                _thread = threading.Thread(target=_watch, name="template-watchdog", daemon=True)
                _thread.start()
    _running[key] = call
    if not _wake.is_set():
        _wake.set()


def _watch() -> None:
    while True:
        _wake.wait()
        idle = 0
        while idle < _IDLE_POLLS:
            time.sleep(_POLL)
            idle = 0 if _running else idle + 1
            now = time.monotonic()
            for key, call in list(_running.items()):
                if call.end < now and _running.pop(key, None) is not None:
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(call.thread), ctypes.py_object(_Expired))
                    call.fired = True
        _wake.clear()
        if _running:  # a call that began between the last look and the clearing
            _wake.set()
