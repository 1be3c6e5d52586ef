"""From tokens to the text that may be shown: whole characters, and nothing that may become a stop string."""

from collections.abc import Sequence
from typing import Any


class TextStream:
    """One answer's text, token by token."""

    def __init__(self, decoder: Any, stop: Sequence[str], strip: bool) -> None:
        """
        Args:
            decoder: tokenizer.Prompts.stream's; it keeps half a character back.
            stop: texts that end the answer and are not part of it.
            strip: whether to drop white space at the beginning, as transformers' chat pipeline does.
        """
        self._decoder, self._stop, self._strip = decoder, stop, strip
        self._held = ""  # decoded, not yet shown
        self._longest = max(map(len, stop), default=0)
        self.shown = ""
        self.stopped = False

    def add(self, token: int) -> str:
        """What can be shown now. Sets `stopped` where a stop string is complete."""
        self._held += self._decoder.decode(token)
        places = [place for stop in self._stop if (place := self._held.find(stop)) >= 0]
        if places:
            self.stopped = True
            self._held = self._held[: min(places)]
            return self.rest()
        keep = next((n for n in range(min(self._longest, len(self._held)), 0, -1) if self._may_stop(n)), 0)
        return self._show(len(self._held) - keep)

    def rest(self) -> str:
        """What was held back, at the end of the answer."""
        return self._show(len(self._held))

    def _may_stop(self, count: int) -> bool:
        return any(stop.startswith(self._held[-count:]) for stop in self._stop)

    def _show(self, count: int) -> str:
        piece, self._held = self._held[:count], self._held[count:]
        if self._strip and not self.shown:
            piece = piece.lstrip()
        self.shown += piece
        return piece
