"""Refuse connections to other machines, in every Python process of the tests.

Python imports a module `sitecustomize` when it starts, and this folder is on the PYTHONPATH of the tests.
"""

import ipaddress
import sys


def is_local(host: object) -> bool:
    """Return whether an address or a name, as the socket module takes it, is this machine."""
    if host in (None, "", "localhost", b"localhost"):
        return True
    name = host.decode() if isinstance(host, bytes) else str(host)
    try:
        return ipaddress.ip_address(name).is_loopback or name in ("0.0.0.0", "::")
    except ValueError:  # a name, which only a name server could resolve
        return False


def refuse_other_machines(event: str, args: tuple) -> None:
    """Raise RuntimeError where this process connects to another machine, or looks up a name.

    Args:
        event: the name of an audit event (https://docs.python.org/3/library/audit_events.html).
        args: what Python says of it.
    """
    host = None
    if event == "socket.connect" and isinstance(args[1], tuple):
        host = args[1][0]
    elif event == "socket.getaddrinfo":
        host = args[0]
    if not is_local(host):
        raise RuntimeError(f"a test tried to reach {host!r}; only loopback is allowed")


sys.addaudithook(refuse_other_machines)
