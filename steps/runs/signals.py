"""Let Ctrl-C, SIGTERM and SIGHUP stop a step once, and for certain.

The state is global, because a process has only one handler for each signal.
"""

import signal

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_asked = False


def listen() -> None:
    """Let the first signal raise KeyboardInterrupt in the main thread. Signals after the first are ignored."""
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` and scripts start a process that ignores signals
            signal.signal(number, _stop)


def ignore() -> None:
    """Ignore signals from now on: what runs now must not be cut short."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def asked() -> bool:
    """Return whether a signal has come."""
    return _asked


def check() -> None:
    """Raise KeyboardInterrupt if a signal has come. A finalizer or a library may have swallowed the first one."""
    if _asked:
        raise KeyboardInterrupt


def _stop(*_: object) -> None:
    global _asked
    _asked = True
    ignore()  # Ctrl-C reaches every process of the terminal, and MLflow sends SIGTERM as well: stop only once
    raise KeyboardInterrupt
