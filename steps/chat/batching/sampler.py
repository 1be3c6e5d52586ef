"""The next token, from its logits."""

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..api.requests import Sampling
    from .constraint import Guide

_LIKELY = 1024  # of the tokens sorted at first; all of them only where those do not hold enough probability


class Sampler:
    """Chooses the tokens of one answer. The same seed chooses the same from the same logits."""

    def __init__(self, sampling: "Sampling", index: int = 0, guide: "Guide | None" = None) -> None:
        """
        Args:
            index: of the choice, where a request asks for several.
            guide: what the answer must match, if anything.
        """
        self._sampling, self._guide = sampling, guide
        seed = None if sampling.seed is None else [sampling.seed, index]
        self._random = np.random.default_rng(seed) if sampling.temperature > 0 else None
        self._counts: Counter[int] = Counter()
        self._penalised = bool(sampling.frequency_penalty or sampling.presence_penalty)

    def choose(self, logits: np.ndarray) -> int:
        """The next token.

        Args:
            logits: float32 [vocabulary]; not changed.
        """
        if self._penalised or self._guide:
            logits = logits.copy()
        if self._penalised and self._counts:
            # https://platform.openai.com/docs/api-reference/chat: of the answer's own tokens, not the prompt's
            tokens, counts = np.array([*self._counts]), np.array([*self._counts.values()], np.float32)
            logits[tokens] -= counts * self._sampling.frequency_penalty + self._sampling.presence_penalty
        if self._guide:
            logits[~self._guide.allowed(len(logits))] = -np.inf
        token = int(logits.argmax()) if self._random is None else self._draw(logits)
        if self._penalised:
            self._counts[token] += 1
        if self._guide:
            self._guide.accept(token)
        return token

    def _draw(self, logits: np.ndarray) -> int:
        """Temperature, then the top_k most likely, then the fewest of those that hold top_p of their probability."""
        s = self._sampling
        scaled = logits.astype(np.float64) / s.temperature
        weights = np.exp(scaled - scaled.max())
        most = min(s.top_k or len(weights), len(weights))
        order = _largest(logits, min(most, _LIKELY) if s.top_p < 1 else most)
        if s.top_p < 1:
            total = (weights if most == len(weights) else weights[_largest(logits, most)]).sum()
            if weights[order].sum() < s.top_p * total:
                order = _largest(logits, most)
            sums = np.cumsum(weights[order])
            order = order[: int(np.searchsorted(sums, s.top_p * total)) + 1]
        sums = np.cumsum(weights[order])
        place = int(np.searchsorted(sums, self._random.random() * sums[-1], side="right"))
        return int(order[min(place, len(order) - 1)])


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Indices of the largest values, the largest first; equals in the order of their indices."""
    if count >= len(values):
        return np.argsort(-values, kind="stable")
    least = np.partition(values, -count)[-count]
    above, equal = np.flatnonzero(values > least), np.flatnonzero(values == least)
    found = np.concatenate([above, equal[: count - len(above)]])
    return found[np.argsort(-values[found], kind="stable")]
