"""Turn tokens into text that may be shown: whole characters, and nothing that may become a stop string."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..runtime.stream_decoder import StreamDecoder


class TextStream:
    """The text of one answer, token by token."""

    def __init__(self, decoder: "StreamDecoder", stop: Sequence[str], strip: bool) -> None:
        """
        Args:
            stop: stop strings. The first one that occurs ends the answer, and is not part of it.
            strip: whether to drop white space at the beginning, as transformers' chat pipeline does.
        """
        self._decoder, self._stop, self._strip = decoder, stop, strip
        self._held = ""  # decoded, but not shown yet
        self._longest_stop = max(map(len, stop), default=0)
        self.shown = ""
        self.length = 0  # characters decoded so far; after a stop string, those before it
        self.stopped = False

    def add(self, token: int) -> str:
        """Return the text that can be shown after this token. Set `stopped` when a stop string is complete."""
        decoded = self._decoder.decode(token)
        self._held += decoded
        self.length += len(decoded)
        starts = [start for stop in self._stop if (start := self._held.find(stop)) >= 0]
        if starts:
            self.stopped = True
            self.length -= len(self._held) - min(starts)
            self._held = self._held[: min(starts)]
            return self.rest()
        longest = min(self._longest_stop, len(self._held))
        kept_back = next((count for count in range(longest, 0, -1) if self._may_become_stop(count)), 0)
        return self._show(len(self._held) - kept_back)

    def rest(self) -> str:
        """Return the text that was held back, at the end of the answer."""
        return self._show(len(self._held))

    def _may_become_stop(self, count: int) -> bool:
        return any(stop.startswith(self._held[-count:]) for stop in self._stop)

    def _show(self, count: int) -> str:
        piece, self._held = self._held[:count], self._held[count:]
        if self._strip and not self.shown:
            piece = piece.lstrip()
        self.shown += piece
        return piece
