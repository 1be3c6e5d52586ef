"""Fidelity: how far a model's distributions are from the reference's, token by token, on the same text.

The definitions are those of llama.cpp's perplexity tool (tools/perplexity/README.md and perplexity.cpp,
https://github.com/ggml-org/llama.cpp): teacher-forced, in nats, with the standard errors that take tokens for
independent. As there, a window's first half is context only.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from steps.evaluation.statistics import bootstrap, standard_error

WINDOW = 512
_CELLS = 1 << 21  # logits that are worked on at a time: 16 MB of float64
_EDGES = np.logspace(-8, 2, 41)  # nats, of the histogram


@dataclass(frozen=True)
class Window:
    """Tokens, of which those after position `first` are predicted and counted."""

    tokens: list[int]
    first: int

    @property
    def targets(self) -> list[int]:
        """The tokens that are predicted."""
        return self.tokens[self.first + 1 :]


def text_windows(tokens: Sequence[int], count: int, size: int = WINDOW) -> list[Window]:
    """Windows spread evenly over a text, enough for `count` predicted tokens or as many as it has.

    Args:
        size: of a window; half of it is predicted.
    """
    size = min(size, len(tokens))
    if size < 2:
        return []
    wanted = max(1, -(-count // (size - size // 2)))
    most = max(1, len(tokens) // size)
    number = min(wanted, most)
    starts = np.linspace(0, len(tokens) - size, number).astype(int)
    return [Window([int(token) for token in tokens[start : start + size]], size // 2 - 1) for start in starts]


def token_figures(reference: np.ndarray, logits: np.ndarray, targets: Sequence[int]) -> np.ndarray:
    """What is kept of each predicted token.

    Args:
        reference, logits: [tokens, vocabulary].
        targets: the tokens that come next in the text.

    Returns:
        float64 [tokens, 4]: negative log likelihood under the reference and under the model; KL divergence of the
        model from the reference; 1 where both find the same token most likely.
    """
    found = np.empty((len(targets), 4))
    rows = max(1, _CELLS // reference.shape[-1])
    for start in range(0, len(targets), rows):
        part = slice(start, min(start + rows, len(targets)))
        expected, actual = _log_softmax(reference[part]), _log_softmax(logits[part])
        place = np.arange(expected.shape[0]), np.asarray(targets[part])
        found[part, 0], found[part, 1] = -expected[place], -actual[place]
        found[part, 3] = expected.argmax(-1) == actual.argmax(-1)
        actual -= expected  # log q - log p
        found[part, 2] = -(np.exp(expected) * actual).sum(-1)
    return found


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def compare(reference: np.ndarray, blocks: Iterator[np.ndarray], targets: Sequence[int]) -> np.ndarray:
    """token_figures of a stream of logits against the reference's, which may be mapped from a file.

    Raises:
        ValueError: the two have other vocabularies, or the stream another number of tokens.
    """
    found, done = [], 0
    for block in blocks:
        if block.shape[-1] != reference.shape[-1]:
            raise ValueError(f"a vocabulary of {block.shape[-1]}, and the reference one of {reference.shape[-1]}")
        end = done + len(block)
        found.append(token_figures(reference[done:end], block, targets[done:end]))
        done = end
    if done != len(targets):
        raise ValueError(f"logits of {done} tokens instead of {len(targets)}")
    return np.concatenate(found) if found else np.empty((0, 4))


def summary(figures: np.ndarray) -> dict[str, Any]:
    """The figures of a text.

    perplexity: exp of the mean negative log likelihood (nll). ln_perplexity_ratio: mean of nll - the reference's nll.
    kl_*: KL divergence in nats. same_top: share of tokens where both find the same one most likely. rms_dp: root mean
    square of the change of the next token's probability.

    Args:
        figures: [tokens, 4] of token_figures.

    Returns:
        `metrics`; their standard `errors`, of the median and the 99% quantile by bootstrap, and none of the maximum,
        whose bootstrap tells nothing; the `kl_histogram`.
    """
    base, nll, kl, same = figures.T
    change = np.exp(-nll) - np.exp(-base)
    rms, top = float(np.sqrt(np.mean(change**2))), float(same.mean())
    perplexity, count = float(np.exp(nll.mean())), len(nll)
    metrics = {
        "perplexity": perplexity,
        "ln_perplexity_ratio": float((nll - base).mean()),
        "kl_mean": float(kl.mean()),
        "kl_median": float(np.median(kl)),
        "kl_99": float(np.quantile(kl, 0.99)),
        "kl_max": float(kl.max()),
        "same_top": top,
        "rms_dp": rms,
    }
    errors = {
        "perplexity": perplexity * standard_error(nll),
        "ln_perplexity_ratio": standard_error(nll - base),
        "kl_mean": standard_error(kl),
        "kl_median": float(bootstrap(kl, np.median, 200).std()),
        "kl_99": float(bootstrap(kl, lambda part, axis: np.quantile(part, 0.99, axis=axis), 200).std()),
        "same_top": float(np.sqrt(top * (1 - top) / (count - 1))) if count > 1 else float("nan"),
        "rms_dp": standard_error(change**2) / (2 * rms) if rms else 0.0,
    }
    counts, _ = np.histogram(np.clip(kl, _EDGES[0], _EDGES[-1]), _EDGES)
    return {
        "metrics": metrics,
        "errors": errors,
        "kl_histogram": {"edges": _EDGES.tolist(), "counts": counts.tolist()},
    }
