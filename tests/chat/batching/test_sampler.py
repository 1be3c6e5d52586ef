"""The sampler: which token it chooses, and how often."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from steps.chat.api.requests import Sampling
from steps.chat.batching.sampler import Sampler

pytestmark = pytest.mark.unit
PROBABILITIES = np.array([0.5, 0.25, 0.125, 0.0625, 0.0625])
LOGITS = np.log(PROBABILITIES).astype(np.float32)


def drawn(count: int = 4000, logits: np.ndarray = LOGITS, **fields) -> Counter[int]:
    """Return how often each token is chosen."""
    sampler = Sampler(Sampling(max_tokens=1, seed=7, **fields))
    return Counter(sampler.choose(logits) for _ in range(count))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"temperature": 1.0}, PROBABILITIES),
        ({"temperature": 0.5}, PROBABILITIES**2),
        ({"temperature": 1.0, "top_k": 2}, PROBABILITIES * [1, 1, 0, 0, 0]),
        ({"temperature": 1.0, "top_p": 0.8}, PROBABILITIES * [1, 1, 1, 0, 0]),
        ({"temperature": 1.0, "top_p": 0.6, "top_k": 3}, PROBABILITIES * [1, 1, 0, 0, 0]),
        ({"temperature": 1.0, "top_p": 0.0}, [1, 0, 0, 0, 0]),
    ],
)
def test_tokens_come_as_often_as_they_should(fields, expected):
    counts = drawn(**fields)
    observed = np.array([counts[token] for token in range(5)])
    expected = np.array(expected) / np.sum(expected) * observed.sum()
    assert not observed[expected == 0].any()
    possible = expected > 0
    assert possible.sum() == 1 or stats.chisquare(observed[possible], expected[possible]).pvalue > 1e-4


def test_every_token_of_a_large_flat_distribution_can_be_drawn():
    flat = np.zeros(50_000, np.float32)
    assert max(drawn(500, flat, temperature=1.0, top_p=0.99)) > 40_000


@given(st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=40), st.integers(0, 5), st.floats(0, 1))
def test_top_p_and_top_k_allow_the_tokens_of_a_plain_computation(values, top_k, top_p):
    logits = np.array(values, np.float32)
    order = np.argsort(-logits, kind="stable")[: top_k or None]
    weights = np.exp(logits[order].astype(np.float64) - logits.max())
    before = np.cumsum(weights) - weights
    allowed = set(order[before <= top_p * weights.sum() * (1 + 1e-12)].tolist())
    assert set(drawn(30, logits, temperature=1.0, top_k=top_k, top_p=top_p)) <= allowed


def test_greedy_takes_the_first_of_the_most_likely():
    assert drawn(1, np.array([1, 3, 3], np.float32)) == {1: 1}


def test_the_same_seed_chooses_the_same_tokens_and_each_choice_of_a_request_has_its_own():
    def run(seed, choice):
        sampler = Sampler(Sampling(1, temperature=1.0, seed=seed), choice)
        return [sampler.choose(LOGITS) for _ in range(50)]

    assert run(3, 0) == run(3, 0)
    assert run(3, 0) != run(4, 0) and run(3, 0) != run(3, 1)
    assert run(None, 0) != run(None, 0)


def test_penalties_lower_the_logits_as_openai_defines():
    sampler = Sampler(Sampling(1, frequency_penalty=0.5, presence_penalty=1.0))
    logits = np.array([2.0, 1.1, 0.0], np.float32)
    # 0 is chosen. Then its logit is 2 - 0.5 - 1 = 0.5, so 1 is chosen. Then the logit of 1 is -0.4, so 0 is chosen
    # again. Then its logit is 0, which is also the logit of 2.
    assert [sampler.choose(logits) for _ in range(4)] == [0, 1, 0, 0]
    assert logits.tolist() == [2.0, np.float32(1.1), 0.0], "the sampler must not change the array of the graph"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"temperature": 1.0, "min_p": 0.2}, PROBABILITIES * [1, 1, 1, 0, 0]),
        ({"temperature": 0.5, "min_p": 0.2}, PROBABILITIES**2 * [1, 1, 0, 0, 0]),  # min_p comes after the temperature
        ({"temperature": 1.0, "logit_bias": ((0, -100.0),)}, PROBABILITIES * [0, 1, 1, 1, 1]),
        ({"temperature": 1.0, "logit_bias": ((4, float(np.log(4))),)}, PROBABILITIES * [1, 1, 1, 1, 4]),
    ],
)
def test_min_p_and_bias_change_how_often_tokens_come(fields, expected):
    test_tokens_come_as_often_as_they_should(fields, expected)


def test_the_repetition_penalty_counts_the_prompt_and_the_answer():
    logits = np.array([4.0, 3.9, -1.0, -1.5], np.float32)
    sampler = Sampler(Sampling(1, repetition_penalty=2.0), prompt=[0, 2])
    # 0 is in the prompt: 4 / 2 = 2, so 1 is chosen. Then 1 counts too: 3.9 / 2 = 1.95, so 0 is chosen.
    assert [sampler.choose(logits) for _ in range(3)] == [1, 0, 0]
    below = Sampler(Sampling(1, repetition_penalty=2.0, logit_bias=((0, -100.0), (1, -100.0))), prompt=[2])
    assert below.choose(logits) == 3, "a negative logit is multiplied: -1 becomes -2"


def test_log_probabilities_are_the_models_own():
    sampling = Sampling(1, temperature=2.0, seed=1, logit_bias=((0, -100.0),), frequency_penalty=1.0, logprobs=2)
    sampler = Sampler(sampling)
    token = sampler.choose(LOGITS)
    assert token != 0 and sampler.logprobs[0].token == token
    assert np.isclose(sampler.logprobs[0].logprob, np.log(PROBABILITIES[token]), atol=1e-6)
    assert [other for other, _ in sampler.logprobs[0].top] == [0, 1]
    assert np.allclose([value for _, value in sampler.logprobs[0].top], np.log([0.5, 0.25]), atol=1e-6)


def test_a_bias_that_forbids_every_token_forbids_none():
    banned = tuple((token, -100.0) for token in range(5))
    assert Sampler(Sampling(1, logit_bias=banned)).choose(LOGITS) == 0
