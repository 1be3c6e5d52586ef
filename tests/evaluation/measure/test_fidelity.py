"""Token scores with known values: from scipy, from theory, by hand."""

import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.stats import entropy

from steps.evaluation.measure.fidelity import (
    KL,
    NLL,
    REFERENCE_NLL,
    SAME_TOP,
    figures,
    kl_histogram,
    score_stream,
    score_tokens,
)

pytestmark = pytest.mark.unit


def random_logits(tokens: int, vocabulary: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, (tokens, vocabulary)).astype(np.float32)


def test_scores_are_scipys():
    reference, logits = random_logits(50, 300), random_logits(50, 300, 1)
    targets = np.random.default_rng(2).integers(0, 300, 50)
    scores = score_tokens(reference, logits, targets.tolist())
    log_p, log_q = log_softmax(reference.astype(float), axis=1), log_softmax(logits.astype(float), axis=1)
    cells = np.arange(50), targets
    np.testing.assert_allclose(scores[:, REFERENCE_NLL], -log_p[cells])
    np.testing.assert_allclose(scores[:, NLL], -log_q[cells])
    np.testing.assert_allclose(scores[:, KL], entropy(np.exp(log_p), np.exp(log_q), axis=1), rtol=1e-9)
    assert scores[:, SAME_TOP].tolist() == (reference.argmax(1) == logits.argmax(1)).tolist()


@pytest.mark.parametrize("sigma", [0.01, 0.1])
def test_noise_of_known_size_has_the_divergence_of_theory(sigma):
    """E KL = sigma^2 / 2 (1 - sum p^2) to second order: half the variance of the noise under p."""
    reference = random_logits(400, 2000)
    noise = np.random.default_rng(3).normal(0, sigma, reference.shape)
    kl_mean = figures(score_tokens(reference, reference + noise, reference.argmax(1).tolist()))["kl_mean"]
    p = np.exp(log_softmax(reference.astype(float), axis=1))
    theory = (sigma**2 / 2 * (1 - (p**2).sum(1))).mean()
    assert kl_mean.value is not None and kl_mean.standard_error is not None
    assert kl_mean.value == pytest.approx(theory, rel=0.03, abs=4 * kl_mean.standard_error)
    assert abs(kl_mean.value - theory) < 0.1 * theory


def test_a_large_vocabulary_is_scored_in_blocks_with_the_same_result():
    reference, logits = random_logits(40, 200_000), random_logits(40, 200_000, 1)
    targets = list(range(40))
    whole = score_tokens(reference, logits, targets)
    np.testing.assert_array_equal(
        score_stream(reference, iter([logits[:7], logits[7:33], logits[33:]]), targets), whole
    )


def test_a_stream_of_another_size_is_refused():
    with pytest.raises(ValueError, match="a vocabulary of 9 tokens; the reference has 10"):
        score_stream(random_logits(3, 10), iter([random_logits(3, 9)]), [0, 1, 2])
    with pytest.raises(ValueError, match="logits of 2 tokens instead of 3"):
        score_stream(random_logits(3, 10), iter([random_logits(2, 10)]), [0, 1, 2])


def test_the_figures_by_hand():
    scores = np.array([[1.0, 1.5, 0.1, 1], [2.0, 1.5, 0.3, 0], [0.5, 0.5, 0.0, 1], [1.0, 2.0, 0.2, 1]])
    result = figures(scores)
    values = {name: figure.value for name, figure in result.items()}
    errors = {name: figure.standard_error for name, figure in result.items()}
    assert values["perplexity"] == pytest.approx(np.exp(5.5 / 4))
    assert values["ln_perplexity_ratio"] == pytest.approx(0.25)
    assert errors["ln_perplexity_ratio"] == pytest.approx(np.std([0.5, -0.5, 0, 1], ddof=1) / 2)
    assert errors["perplexity"] == pytest.approx(values["perplexity"] * np.std([1.5, 1.5, 0.5, 2], ddof=1) / 2)
    assert (values["kl_mean"], values["kl_median"], values["kl_max"]) == pytest.approx((0.15, 0.15, 0.3))
    assert (values["same_top"], errors["same_top"]) == pytest.approx((0.75, np.sqrt(0.75 * 0.25 / 3)))
    change = np.exp([-1.5, -1.5, -0.5, -2]) - np.exp([-1.0, -2, -0.5, -1])
    assert values["rms_dp"] == pytest.approx(np.sqrt(np.mean(change**2)))
    assert errors["kl_median"] and errors["kl_median"] > 0
    assert sum(kl_histogram(scores).counts) == 4
