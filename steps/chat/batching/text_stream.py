"""Turn tokens into text that may be shown: whole characters, and nothing that may become a stop string."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..runtime.reasoning import ThoughtParser
    from ..runtime.stream_decoder import StreamDecoder


class TextStream:
    """The text of one answer, token by token."""

    def __init__(
        self, decoder: "StreamDecoder", stop: Sequence[str], strip: bool, parser: "ThoughtParser | None" = None
    ) -> None:
        """
        Args:
            stop: stop strings. The first one that occurs ends the answer, and is not part of it.
            strip: whether to drop white space at the beginning, as transformers' chat pipeline does.
            parser: separates a thought from the answer. Only the answer has stop strings.
        """
        self._parser = parser
        self._tokens_of_thought = 0
        self._decoder, self._stop, self._strip = decoder, stop, strip
        self._held = ""  # decoded, but not shown yet
        self._longest_stop = max(map(len, stop), default=0)
        self.shown = ""
        self.thought = ""
        self.length = 0  # characters of the answer decoded so far; after a stop string, those before it
        self.stopped_by = ""  # the stop string that ended the answer

    def add(self, token: int) -> str:
        """Return the text that can be shown after this token. Set `stopped_by` when a stop string is complete."""
        answer = self._separate(self._decoder.decode(token))
        self._held += answer
        self.length += len(answer)
        starts = [(start, stop) for stop in self._stop if (start := self._held.find(stop)) >= 0]
        if starts:
            start, self.stopped_by = min(starts)
            self.length -= len(self._held) - start
            self._held = self._held[:start]
            return self.rest()
        longest = min(self._longest_stop, len(self._held))
        kept_back = next((count for count in range(longest, 0, -1) if self._may_become_stop(count)), 0)
        return self._show(len(self._held) - kept_back)

    def rest(self) -> str:
        """Return the text that was held back, at the end of the answer."""
        if self._parser and self._parser.is_open:
            thought, answer = self._parser.end()
            self.thought += thought
            self._held += answer
            self.length += len(answer)
        return self._show(len(self._held))

    @property
    def stopped(self) -> bool:
        """Whether a stop string ended the answer."""
        return bool(self.stopped_by)

    @property
    def thought_tokens(self) -> int | None:
        """Tokens of the thought with its tags; None for a model without thoughts."""
        if self._parser is None:
            return None
        return self._tokens_of_thought if self._parser.thinks else 0

    def _separate(self, text: str) -> str:
        """Add a text to the thought as far as it belongs there, and return what belongs to the answer."""
        if self._parser is None or not self._parser.is_open:
            return text
        self._tokens_of_thought += 1
        thought, answer = self._parser.feed(text)
        self.thought += thought
        return answer

    def _may_become_stop(self, count: int) -> bool:
        return any(stop.startswith(self._held[-count:]) for stop in self._stop)

    def _show(self, count: int) -> str:
        piece, self._held = self._held[:count], self._held[count:]
        if self._strip and not self.shown:
            piece = piece.lstrip()
        self.shown += piece
        return piece
