"""Ctrl-C and its like stop a step once, and for certain."""

import signal

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_asked = False


def listen() -> None:
    """Let the first signal raise KeyboardInterrupt in the main thread."""
    for name in _SIGNALS:
        if signal.getsignal(name) is not signal.SIG_IGN:  # nohup
            signal.signal(name, _stop)


def ignore() -> None:
    """Take no more signals: what runs now must not be cut short."""
    for name in _SIGNALS:
        signal.signal(name, signal.SIG_IGN)


def asked() -> bool:
    """Whether a signal has come."""
    return _asked


def check() -> None:
    """Raise the KeyboardInterrupt again that a finalizer, or a library's `except:`, has swallowed."""
    if _asked:
        raise KeyboardInterrupt


def _stop(*_) -> None:
    global _asked
    _asked = True
    ignore()  # Ctrl-C reaches the whole process group and MLflow adds a SIGTERM: stop once
    raise KeyboardInterrupt
