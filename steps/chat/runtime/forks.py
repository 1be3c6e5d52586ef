"""Let a forked child end, although it holds a session of ONNX Runtime that it cannot destroy.

The destructor of a session waits for the session's threads, and a fork has none of them. So the child would hang when
Python destroys its objects at the end. After a fork, every session that the child has got is therefore kept for ever,
by one reference more. There is no plainer way: Python calls the destructors of all objects that nobody refers to.
"""

import ctypes
import os
import weakref
from typing import Any

_sessions: "weakref.WeakSet[Any]" = weakref.WeakSet()


def keep_in_forks(session: Any) -> None:
    """Never destroy a session in a fork of this process."""
    _sessions.add(session)


def _keep_all() -> None:
    for session in [*_sessions]:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_keep_all)
