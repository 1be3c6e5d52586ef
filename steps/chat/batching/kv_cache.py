"""Decide which sequence each row of the KV cache holds: the active ones, and finished ones as the prompt cache.

Invariant 1: a CachedSequence lists exactly the tokens whose keys and values its row holds.
Invariant 2: the rows of the active sequences are neighbours, because a decode step binds one slice of rows.
Invariant 3: all sequences together hold at most `budget` tokens, where an active one counts what it may grow to.

    row         0          1          2          3          4          5
            | finished | active   | active   | active   |  empty   | finished |
                         `------ one decode step -----'
    admit:  takes row 4, or row 0 after its sequence has moved to an empty row or was given up
    retire: after row 1 nothing moves; when row 2 retires, row 3 moves into the gap

A new sequence takes over or copies the longest prefix of its tokens that a row holds. The tokens are compared one by
one, so nothing of another conversation can be in it. When the budget or the rows are used up, the finished sequence
that was used least recently goes first.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..runtime.decoder_session import DecoderSession

_MIN_COPIED = 16  # tokens; a shorter prefix is computed as quickly as it is copied


@dataclass(eq=False)
class CachedSequence:
    """The tokens whose keys and values one row holds."""

    tokens: list[int]
    row: int
    long_factors: bool  # LongRoPE's long factors rotated the keys
    reserved: int  # tokens that it may grow to while it is active; 0 when it is finished
    last_used: int  # the cache's clock at that time

    @property
    def size(self) -> int:
        """Tokens that the sequence counts for in the budget."""
        return self.reserved or len(self.tokens)


@dataclass(frozen=True)
class _Prefix:
    """The part of a new sequence that the cache holds already: the first `length` tokens of `source`."""

    source: CachedSequence | None = None
    length: int = 0
    takes_over: bool = False  # the new sequence replaces `source`; otherwise it copies from it


class KVCache:
    """The sequences in the rows of a session."""

    def __init__(self, session: DecoderSession, budget: int) -> None:
        """
        Args:
            budget: tokens that all rows together may hold.
        """
        self._session, self.budget = session, budget
        self._rows: list[CachedSequence | None] = [None] * session.rows
        self._clock = 0
        self.active: list[CachedSequence] = []  # in the order of their rows

    def sequences(self) -> Iterator[CachedSequence]:
        """Yield the active and the finished sequences, in the order of their rows."""
        return (sequence for sequence in self._rows if sequence is not None)

    def longest_prefix(self, tokens: Sequence[int], long_factors: bool) -> tuple[CachedSequence | None, int]:
        """Return the sequence that begins with most of `tokens`, and how many tokens. The last token never counts."""
        best, best_length = None, 0
        for sequence in self.sequences():
            if sequence.long_factors == long_factors and sequence.tokens[:1] == tokens[:1]:
                length = common_length(sequence.tokens, tokens[:-1])
                if length > best_length:
                    best, best_length = sequence, length
        return best, best_length

    def admit(
        self, tokens: Sequence[int], reserved: int, long_factors: bool, reuse: bool = True
    ) -> CachedSequence | None:
        """Give a new sequence a row that holds the reused prefix of its tokens, or return None if there is no room now.

        Args:
            reserved: tokens that it may grow to.
            long_factors: whether LongRoPE's long factors rotate its keys.
            reuse: whether it may reuse a prefix.
        """
        if sum(sequence.size for sequence in self.active) + reserved > self.budget:
            return None
        prefix = self._reusable_prefix(tokens, long_factors) if reuse else _Prefix()
        replaced = prefix.source.size if prefix.source and prefix.takes_over else 0
        self._evict_for(reserved - replaced, keep=prefix.source)
        row = self._make_row_free(prefix)
        if row is None:
            return None
        if prefix.source and prefix.source.row != row:
            self._session.copy(prefix.source.row, row, prefix.length)
            if prefix.takes_over:
                self._forget(prefix.source)
        sequence = CachedSequence([*tokens[: prefix.length]], row, long_factors, reserved, self._tick())
        self._rows[row] = sequence
        before_others = bool(self.active) and row < self.active[0].row
        self.active.insert(0 if before_others else len(self.active), sequence)
        return sequence

    def retire(self, sequence: CachedSequence, keep: bool = True) -> None:
        """End an active sequence, and move the last active sequence into its row if the row leaves a gap.

        Args:
            keep: whether its tokens stay for reuse.
        """
        gap, at_an_end = sequence.row, sequence in (self.active[0], self.active[-1])
        index = self.active.index(sequence)
        self.active.remove(sequence)
        sequence.reserved, sequence.last_used = 0, self._tick()
        if not keep or not sequence.tokens:
            self._forget(sequence)
        if at_an_end:
            return
        empty = self._empty_row()
        if self._rows[gap] is sequence and empty is not None:
            self._move(sequence, empty)
        moved = self.active.pop()  # without an empty row it overwrites the finished sequence
        self._move(moved, gap)
        self.active.insert(index, moved)

    def _reusable_prefix(self, tokens: Sequence[int], long_factors: bool) -> _Prefix:
        source, length = self.longest_prefix(tokens, long_factors)
        if source is None:
            return _Prefix()
        takes_over = source not in self.active and 2 * length >= len(source.tokens)
        return _Prefix(source, length, takes_over) if takes_over or length >= _MIN_COPIED else _Prefix()

    def _make_row_free(self, prefix: _Prefix) -> int | None:
        """Return a row beside the active ones that the new sequence may overwrite, or None if there is none.

        A finished sequence in the row moves to an empty row, or is given up. The source of the prefix stays.
        """
        candidates = self._rows_beside_active()
        if prefix.source and prefix.takes_over and prefix.source.row in candidates:
            return prefix.source.row
        for row in candidates:
            if self._rows[row] is None:
                return row
        finished = [s for s in self.sequences() if s.row in candidates and s is not prefix.source]
        if not finished:
            return None
        replaced = min(finished, key=lambda s: s.last_used)
        row, empty = replaced.row, self._empty_row()
        if empty is None:
            self._forget(replaced)
        else:
            self._move(replaced, empty)
        return row

    def _rows_beside_active(self) -> list[int]:
        """Return the rows that keep the active rows neighbours: every row if there are none."""
        if not self.active:
            return [*range(self._session.rows)]
        beside = (self.active[-1].row + 1, self.active[0].row - 1)
        return [row for row in beside if 0 <= row < self._session.rows]

    def _evict_for(self, tokens: int, keep: CachedSequence | None) -> None:
        """Give up finished sequences, the least recently used first, until `tokens` more tokens fit the budget."""
        while sum(sequence.size for sequence in self.sequences()) + tokens > self.budget:
            finished = [s for s in self.sequences() if s not in self.active and s is not keep]
            if not finished:
                return
            self._forget(min(finished, key=lambda s: s.last_used))

    def _empty_row(self) -> int | None:
        return next((row for row, sequence in enumerate(self._rows) if sequence is None), None)

    def _move(self, sequence: CachedSequence, row: int) -> None:
        self._session.copy(sequence.row, row, len(sequence.tokens))
        self._forget(sequence)
        self._rows[row], sequence.row = sequence, row

    def _forget(self, sequence: CachedSequence) -> None:
        self._session.free(sequence.row)
        self._rows[sequence.row] = None

    def _tick(self) -> int:
        self._clock += 1
        return self._clock


def common_length(a: Sequence[int], b: Sequence[int]) -> int:
    """Return how many tokens the two sequences have in common at their beginning."""
    for index, (token, other) in enumerate(zip(a, b, strict=False)):
        if token != other:
            return index
    return min(len(a), len(b))
