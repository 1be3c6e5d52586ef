"""A network that cuts connections: a proxy on loopback in front of a server."""

import contextlib
import socket
import threading


class UnreliableNetwork:
    """A proxy that cuts a connection once a client has sent more than `after` bytes on it, `times` times in all.

    Attributes:
        url: the address of the proxy.
        cuts: how many connections it has cut.
    """

    def __init__(self, server: str, after: int, times: int) -> None:
        """
        Args:
            server: the address of the server, such as http://127.0.0.1:5000.
        """
        self.cuts, self._after, self._times = 0, after, times
        self._server = ("127.0.0.1", int(server.rpartition(":")[2]))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                threading.Thread(target=self._pass_on, args=(client, server, True), daemon=True).start()
                threading.Thread(target=self._pass_on, args=(server, client, False), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, is_request: bool) -> None:
        sent = 0
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sent += len(data)
                if is_request and sent > self._after and self.cuts < self._times:
                    self.cuts += 1
                    break
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
