"""Fidelity: how far the distributions of a model are from the reference's, token by token, on the same text.

The definitions are taken from llama.cpp's perplexity tool (tools/perplexity/README.md and perplexity.cpp,
https://github.com/ggml-org/llama.cpp). Every token is predicted from the tokens of the text before it
(teacher-forced). Values are in nats. Standard errors treat the tokens as independent.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from steps.evaluation.results import Figure, Histogram
from steps.evaluation.statistics import bootstrap, standard_error

# The columns of token scores, an array [tokens, 4].
REFERENCE_NLL = 0  # negative log likelihood under the reference
NLL = 1  # negative log likelihood under the model
KL = 2  # KL divergence of the model from the reference
SAME_TOP = 3  # 1 where the two find the same token most likely, else 0

_CELLS = 1 << 21  # logits that are worked on at a time: 16 MB of float64
_EDGES = np.logspace(-8, 2, 41)  # nats, of the histogram
_QUANTILE_RESAMPLES = 200


def score_tokens(reference: np.ndarray, logits: np.ndarray, targets: Sequence[int]) -> np.ndarray:
    """Return the scores of predicted tokens, float64 [tokens, 4]; the columns are named above.

    Args:
        reference, logits: [tokens, vocabulary].
        targets: the tokens that come next in the text.
    """
    scores = np.empty((len(targets), 4))
    rows = max(1, _CELLS // reference.shape[-1])
    for start in range(0, len(targets), rows):
        part = slice(start, min(start + rows, len(targets)))
        log_p, log_q = _log_softmax(reference[part]), _log_softmax(logits[part])
        cells = np.arange(log_p.shape[0]), np.asarray(targets[part])
        scores[part, REFERENCE_NLL], scores[part, NLL] = -log_p[cells], -log_q[cells]
        scores[part, SAME_TOP] = log_p.argmax(-1) == log_q.argmax(-1)
        log_q -= log_p  # in place, since vocabularies are large
        scores[part, KL] = -(np.exp(log_p) * log_q).sum(-1)
    return scores


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def score_stream(reference: np.ndarray, blocks: Iterator[np.ndarray], targets: Sequence[int]) -> np.ndarray:
    """Return the scores of a stream of logits, float64 [tokens, 4].

    Args:
        reference: [tokens, vocabulary]; may be mapped from a file.
        blocks: the model's logits, some tokens at a time.

    Raises:
        ValueError: the two vocabularies differ in size, or the stream has another number of tokens.
    """
    scores, done = [], 0
    for block in blocks:
        if block.shape[-1] != reference.shape[-1]:
            raise ValueError(f"a vocabulary of {block.shape[-1]} tokens; the reference has {reference.shape[-1]}")
        end = done + len(block)
        scores.append(score_tokens(reference[done:end], block, targets[done:end]))
        done = end
    if done != len(targets):
        raise ValueError(f"logits of {done} tokens instead of {len(targets)}")
    return np.concatenate(scores) if scores else np.empty((0, 4))


def figures(scores: np.ndarray) -> dict[str, Figure]:
    """Return the figures of a text, with standard errors.

    perplexity: exp of the mean negative log likelihood (nll). ln_perplexity_ratio: mean of the nll minus the
    reference's nll. kl_*: KL divergence. same_top: share of tokens where both find the same token most likely.
    rms_dp: root mean square of the change of the next token's probability.

    The errors of the median and of the 99% quantile are by bootstrap. The maximum has none: a bootstrap of a maximum
    says nothing.

    Args:
        scores: [tokens, 4] of score_tokens.
    """
    base, nll, kl, same = scores.T
    squares = (np.exp(-nll) - np.exp(-base)) ** 2
    rms, top, perplexity = float(np.sqrt(np.mean(squares))), float(same.mean()), float(np.exp(nll.mean()))
    top_error = np.sqrt(top * (1 - top) / (len(nll) - 1)) if len(nll) > 1 else np.nan
    return {
        "perplexity": _figure(perplexity, perplexity * standard_error(nll)),
        "ln_perplexity_ratio": _figure((nll - base).mean(), standard_error(nll - base)),
        "kl_mean": _figure(kl.mean(), standard_error(kl)),
        "kl_median": _figure(np.median(kl), bootstrap(kl, np.median, _QUANTILE_RESAMPLES).std()),
        "kl_99": _figure(np.quantile(kl, 0.99), bootstrap(kl, _quantile_99, _QUANTILE_RESAMPLES).std()),
        "kl_max": Figure(value=float(kl.max())),
        "same_top": _figure(top, top_error),
        "rms_dp": _figure(rms, standard_error(squares) / (2 * rms) if rms else 0.0),
    }


def kl_histogram(scores: np.ndarray) -> Histogram:
    """Return the histogram of the KL divergences. Values beyond its edges count in the first or the last bin."""
    counts, _ = np.histogram(np.clip(scores[:, KL], _EDGES[0], _EDGES[-1]), _EDGES)
    return Histogram(edges=tuple(_EDGES.tolist()), counts=tuple(counts.tolist()))


def _figure(value: float, error: float) -> Figure:
    return Figure(value=float(value), standard_error=float(error) if np.isfinite(error) else None)


def _quantile_99(samples: np.ndarray, axis: int) -> np.ndarray:
    return np.quantile(samples, 0.99, axis=axis)
