"""Choose the next token from its logits."""

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..api.requests import Sampling
    from .constraint import Constraint
    from .thoughts import ThoughtConstraint

_SORTED_FIRST = 1024  # tokens; all tokens are sorted only if these do not hold enough probability


class Sampler:
    """Chooses the tokens of one answer. The same seed and the same logits give the same tokens."""

    def __init__(
        self, sampling: "Sampling", choice: int = 0, constraint: "Constraint | ThoughtConstraint | None" = None
    ) -> None:
        """
        Args:
            choice: the number of the answer among the `n` answers of a request. Each answer has its own random numbers.
        """
        self._sampling, self._constraint = sampling, constraint
        seed = None if sampling.seed is None else [sampling.seed, choice]
        self._random = np.random.default_rng(seed) if sampling.temperature > 0 else None
        self._counts: Counter[int] = Counter()
        self._penalised = bool(sampling.frequency_penalty or sampling.presence_penalty)

    def choose(self, logits: np.ndarray) -> int:
        """Return the next token.

        Args:
            logits: float32 [vocabulary]. They are not changed.
        """
        allowed = self._constraint.allowed(len(logits)) if self._constraint else None
        if self._penalised or allowed is not None:
            logits = logits.copy()
        if self._penalised and self._counts:
            # As https://platform.openai.com/docs/api-reference/chat: tokens of the prompt do not count.
            tokens, counts = np.array([*self._counts]), np.array([*self._counts.values()], np.float32)
            logits[tokens] -= counts * self._sampling.frequency_penalty + self._sampling.presence_penalty
        if allowed is not None:
            logits[~allowed] = -np.inf
        token = int(logits.argmax()) if self._random is None else self._draw(logits, self._random)
        if self._constraint:
            token = self._constraint.accept(token)
        if self._penalised:
            self._counts[token] += 1
        return token

    def _draw(self, logits: np.ndarray, random: np.random.Generator) -> int:
        """Draw by temperature from the top_k most likely tokens, cut to the fewest tokens that hold top_p of them."""
        sampling = self._sampling
        scaled = logits.astype(np.float64) / sampling.temperature
        weights = np.exp(scaled - scaled.max())
        most = min(sampling.top_k or len(weights), len(weights))
        order = _largest(logits, min(most, _SORTED_FIRST) if sampling.top_p < 1 else most)
        if sampling.top_p < 1:
            total = (weights if most == len(weights) else weights[_largest(logits, most)]).sum()
            if weights[order].sum() < sampling.top_p * total:
                order = _largest(logits, most)
            sums = np.cumsum(weights[order])
            order = order[: int(np.searchsorted(sums, sampling.top_p * total)) + 1]
        sums = np.cumsum(weights[order])
        position = int(np.searchsorted(sums, random.random() * sums[-1], side="right"))
        return int(order[min(position, len(order) - 1)])


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Return the indices of the `count` largest values, from the largest down. Equal values keep their order."""
    if count >= len(values):
        return np.argsort(-values, kind="stable")
    least = np.partition(values, -count)[-count]
    above, equal = np.flatnonzero(values > least), np.flatnonzero(values == least)
    indices = np.concatenate([above, equal[: count - len(above)]])
    return indices[np.argsort(-values[indices], kind="stable")]
