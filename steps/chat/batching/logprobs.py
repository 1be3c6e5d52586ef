"""Log probabilities of tokens: what the model itself thinks of them, before temperature, penalties and constraints."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TokenLogprob:
    """A token, its log probability, and the most likely tokens in its place with theirs."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


def token_logprob(logits: np.ndarray, token: int, alternatives: int) -> TokenLogprob:
    """Return the log probability of a token.

    Args:
        logits: float32 [vocabulary].
        alternatives: how many of the most likely tokens to return beside it.
    """
    shifted = logits.astype(np.float64) - float(logits.max())
    total = float(np.log(np.exp(shifted).sum()))
    top = tuple((int(other), float(shifted[other] - total)) for other in largest(logits, alternatives))
    return TokenLogprob(token, float(shifted[token] - total), top)


def prompt_logprobs(logits: np.ndarray, tokens: Sequence[int], alternatives: int) -> list[TokenLogprob]:
    """Return the log probabilities of tokens of a prompt.

    Args:
        logits: float32 [tokens, vocabulary]; row i predicts token i.
    """
    return [token_logprob(row, token, alternatives) for row, token in zip(logits, tokens, strict=True)]


def largest(values: np.ndarray, count: int) -> np.ndarray:
    """Return the indices of the `count` largest values, from the largest down. Equal values keep their order."""
    if count <= 0:
        return np.empty(0, np.int64)
    if count >= len(values):
        return np.argsort(-values, kind="stable")
    least = np.partition(values, -count)[-count]
    above, equal = np.flatnonzero(values > least), np.flatnonzero(values == least)
    indices = np.concatenate([above, equal[: count - len(above)]])
    return indices[np.argsort(-values[indices], kind="stable")]
