"""Which texts the rows of keys and values hold: those being answered, side by side, and finished ones, for reuse.

A new request takes over or copies the longest prefix of its tokens that a row holds, token by token the same: nothing
of another text can be in it. Finished texts go, the least recently used first, where budget or rows are used up.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..runtime.decoder_session import DecoderSession

_WORTH_COPYING = 16  # tokens of a prefix; fewer are computed as quickly


@dataclass(eq=False)
class Text:
    """The tokens whose keys and values a row holds."""

    tokens: list[int] = field(default_factory=list)
    long: bool = False  # made with LongRoPE's long factors
    reserved: int = 0  # tokens that it may grow to, while it is answered; then its length counts
    used: int = 0

    @property
    def size(self) -> int:
        """What it takes of the budget."""
        return self.reserved or len(self.tokens)


class Memory:
    """The rows' texts. Those being answered, `active`, are always in neighbouring rows, from `first` on."""

    def __init__(self, rows: DecoderSession, budget: int) -> None:
        """
        Args:
            budget: tokens that all rows together may hold.
        """
        self._rows, self.budget = rows, budget
        self._texts: list[Text | None] = [None] * rows.rows
        self._clock = 0
        self.first = 0
        self.active: list[Text] = []

    def row(self, text: Text) -> int:
        """The row of an active text."""
        return self.first + self.active.index(text)

    def prefix(self, tokens: Sequence[int], long: bool) -> tuple[int | None, int]:
        """The row that holds most of the beginning of a text, and how many tokens; never the last of them."""
        best, length = None, 0
        for row, text in enumerate(self._texts):
            if text and text.long == long and text.tokens[:1] == tokens[:1]:
                common = common_length(text.tokens, tokens[:-1])
                if common > length:
                    best, length = row, common
        return best, length

    def admit(self, tokens: Sequence[int], reserved: int, long: bool, reuse: bool = True) -> Text | None:
        """A row for a new text, with what there was of its beginning; None where there is no room now.

        Args:
            reserved: the tokens that it may grow to.
            long: whether it needs LongRoPE's long factors from its first token on.
        """
        if sum(text.size for text in self.active) + reserved > self.budget:
            return None
        source, common = self.prefix(tokens, long) if reuse else (None, 0)
        origin = None if source is None else self._texts[source]
        takes_over = origin is not None and origin not in self.active and 2 * common >= len(origin.tokens)
        if not takes_over and common < _WORTH_COPYING:
            source, common, origin = None, 0, None
        self._evict_for(reserved - (origin.size if takes_over else 0), keep=origin)
        target = self._place(source if takes_over else None, keep=source)
        if target is None:
            return None
        if target != source:
            if common:
                self._rows.copy(source, target, common)
            if takes_over:
                self._forget(source)
        text = Text(list(tokens[:common]), long, reserved, self._tick())
        self._texts[target] = text
        if not self.active or target < self.first:
            self.first = target
        self.active.insert(target - self.first, text)
        return text

    def retire(self, text: Text, keep: bool = True) -> None:
        """End a text: its row may be reused, and the active ones stay neighbours."""
        row = self.row(text)
        last = self.first + len(self.active) - 1
        self.active.remove(text)
        text.reserved, text.used = 0, self._tick()
        if not keep or not text.tokens:
            self._forget(row)
        if row == self.first:
            self.first += 1
        elif row != last:  # the last active row fills the gap
            if self._texts[row] and (empty := self._empty()) is not None:
                self._move(row, empty)
            moved = self.active.pop()
            self._move(last, row)
            self.active.insert(row - self.first, moved)

    def _place(self, preferred: int | None, keep: int | None) -> int | None:
        """An empty row, or the preferred one, next to the active ones; what is there is moved or given up."""
        end = self.first + len(self.active)
        if self.active:
            places = [row for row in (end, self.first - 1) if 0 <= row < self._rows.rows]
        else:
            places = [*range(self._rows.rows)]
        if preferred in places:
            return preferred
        if not places:
            return None
        free = [row for row in places if self._texts[row] is None]
        if free:
            return free[0]
        target = next((row for row in places if row != keep), None) if self.active else self._oldest(keep)
        if target is None:
            return None
        empty = self._empty()
        if empty is None:
            self._forget(target)
        else:
            self._move(target, empty)
        return target

    def _evict_for(self, tokens: int, keep: Text | None) -> None:
        """Give up finished texts until there is room for so many more tokens."""
        while sum(text.size for text in self._texts if text) + tokens > self.budget:
            row = self._oldest(None if keep is None else self._texts.index(keep))
            if row is None:
                return
            self._forget(row)

    def _oldest(self, keep: int | None) -> int | None:
        finished = [r for r, text in enumerate(self._texts) if text and text not in self.active and r != keep]
        return min(finished, key=lambda row: self._texts[row].used, default=None)

    def _empty(self) -> int | None:
        return next((row for row, text in enumerate(self._texts) if text is None), None)

    def _move(self, source: int, target: int) -> None:
        text = self._texts[source]
        self._rows.copy(source, target, len(text.tokens))
        self._texts[target] = text
        self._forget(source)

    def _forget(self, row: int) -> None:
        self._rows.free(row)
        self._texts[row] = None

    def _tick(self) -> int:
        self._clock += 1
        return self._clock


def common_length(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two texts begin with in common."""
    for index, (one, other) in enumerate(zip(a, b, strict=False)):
        if one != other:
            return index
    return min(len(a), len(b))
