"""API keys: from a file or the environment, compared in constant time, read again on SIGHUP."""

import hashlib
import hmac
import os
from collections.abc import Mapping
from pathlib import Path

from steps.common.errors import StepError

KEY_VARIABLE, FILE_VARIABLE = "PHI_MLFLOW_API_KEY", "PHI_MLFLOW_API_KEY_FILE"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_SHORTEST = 8  # characters of a key


class Keys:
    """The keys that open the server. Without any key, everybody on this machine may use it."""

    def __init__(self) -> None:
        """Read the keys.

        Raises:
            StepError: see reload.
        """
        self._digests: frozenset[bytes] = frozenset()
        self.reload()

    def __len__(self) -> int:
        return len(self._digests)

    def reload(self) -> None:
        """Read the keys again: those of the environment, separated by commas, and one a line of the file.

        Raises:
            StepError: the file can't be read, or a key is too short. The keys stay as they were.
        """
        keys = os.environ.get(KEY_VARIABLE, "").split(",")
        path = os.environ.get(FILE_VARIABLE, "")
        if path:
            try:
                lines = Path(path).read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise StepError(f"{FILE_VARIABLE} names a file that can't be read: {error}") from None
            keys += [line.partition("#")[0] for line in lines]
        keys = [key.strip() for key in keys if key.strip()]
        if path and not keys:
            raise StepError(f"{FILE_VARIABLE} names a file without a key; expected one key a line")
        if any(len(key) < _SHORTEST for key in keys):
            raise StepError(f"a key of {KEY_VARIABLE} or {FILE_VARIABLE} is too short; expected {_SHORTEST} characters")
        self._digests = frozenset(map(_digest, keys))

    def admit(self, headers: Mapping[str, str]) -> bool:
        """Return whether the headers of a request have a key: `Authorization: Bearer KEY`, or `x-api-key: KEY`.

        The time that this takes does not depend on how much of a key is right: digests are compared, and all of them.
        """
        digests = [_digest(key) for key in _offered(headers)]
        matches = [hmac.compare_digest(digest, known) for digest in digests for known in self._digests]
        return not self._digests or any(matches)

    def client(self, headers: Mapping[str, str]) -> str:
        """Return a name for the key in a request's headers, which does not tell the key; empty if it has none of ours.

        It is the beginning of the key's SHA-256: `printf %s KEY | sha256sum` tells an operator whose it is.
        """
        known = [digest for key in _offered(headers) if (digest := _digest(key)) in self._digests]
        return known[0].hex()[:12] if known else ""


def _offered(headers: Mapping[str, str]) -> list[str]:
    """Return the keys in the headers of a request."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    offered = [token.strip()] if scheme.lower() == "bearer" else []
    offered.append(headers.get("x-api-key", "").strip())
    return [key for key in offered if key]


def check_host(host: str, keys: int) -> None:
    """Raise StepError if the server would be open to other machines without a key."""
    if host not in LOOPBACK and not keys:
        raise StepError(
            f"host is {host!r}, which other machines may reach, and there is no API key: set {KEY_VARIABLE} or "
            f"{FILE_VARIABLE}, or leave host at 127.0.0.1"
        )


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
