"""The choice of the champion among evaluated versions."""

import numpy as np
import pytest

from steps.evaluation.results import Figure, SpeedSample
from steps.evaluation.summary import Evidence
from steps.evaluation.verdict.comparison import Candidate
from steps.evaluation.verdict.promotion import decide

pytestmark = pytest.mark.unit


def samples(rate: float, seed: int) -> tuple[SpeedSample, ...]:
    """Return ten repetitions that scatter by 3%.

    Args:
        rate: decoded tokens per second.
    """
    scatter = np.exp(0.03 * np.random.default_rng(seed).standard_normal(10))
    return tuple(
        SpeedSample(
            repetition=repetition,
            prompt_tokens=9,
            first_token_s=0.1,
            cached_first_token_s=0.1,
            cached_answer_s=0.1 + 32 / rate * factor,
            new_tokens=33,
        )
        for repetition, factor in enumerate(scatter)
    )


def candidate(
    label: str,
    version: int,
    rate: float | None = 100.0,
    *,
    is_champion: bool = False,
    given: bool = True,
    failed_gates: tuple[str, ...] = (),
    right: int = 50,
    **metrics: float,
) -> Candidate:
    """Return a version.

    Args:
        rate: decoded tokens per second; None: could not be timed.
        right: of 50 answers.
    """
    values = {"decode_tokens_per_s": rate, "ttft_ms": 9.0, "accuracy": 0.9, "size_mb": 10.0} | metrics
    return Candidate(
        label=label,
        version=version,
        given=given,
        is_champion=is_champion,
        failed_gates=failed_gates,
        figures={name: Figure(value=value) for name, value in values.items()},
        evidence=Evidence(
            speed=samples(rate, version) if rate else (), right=(True,) * right + (False,) * (50 - right), nll=None
        ),
    )


def old(rate: float = 100.0, failed_gates: tuple[str, ...] = ()) -> Candidate:
    """Return the present champion, which the user did not name."""
    return candidate("old", 1, rate, is_champion=True, given=False, failed_gates=failed_gates)


def test_the_first_champion_is_the_fastest_that_passes():
    wrong = candidate("wrong", 3, 900.0, failed_gates=("accuracy 0 < 1",))
    decision = decide([candidate("slow", 1, 50.0), candidate("fast", 2), wrong], "speed")
    assert (decision.champion, decision.challenger) == ("fast", "slow")
    assert decision.reasons["slow"] == "passes every gate, and decodes 50.0 tokens/s against 100 of fast"
    assert decision.reasons["wrong"] == "fails: accuracy 0 < 1"
    assert decision.summary == "fast passes every gate, the best of 2 by speed; there was no champion"


def test_a_new_version_that_is_no_slower_takes_over_and_a_slower_one_challenges():
    decision = decide([old(), candidate("new", 2, 99.5)], "speed")
    assert (decision.champion, decision.challenger) == ("new", None)
    assert "is no slower than old" in decision.summary
    assert decision.reasons["old"] == f"was champion; {decision.summary}"
    decision = decide([old(), candidate("new", 2, 80.0)], "speed")
    assert (decision.champion, decision.challenger) == (None, "new")
    assert "is slower than old (0.8" in decision.reasons["new"]
    assert decision.summary.startswith("old stays: new is slower than old")
    assert decision.reasons["old"] == decision.summary


def test_an_older_version_must_be_better_or_two_equal_ones_would_take_turns():
    newer = candidate("newer", 2, 100.0, is_champion=True)
    decision = decide([candidate("older", 1, 100.5), newer], "speed")
    assert decision.champion is None
    assert "is older" in decision.reasons["older"]
    decision = decide([candidate("older", 1, 150.0), newer], "speed")
    assert decision.champion == "older"
    assert "is older, and better beyond noise: it is no slower than newer (1." in decision.summary


def test_a_version_that_fails_its_gates_is_never_promoted():
    decision = decide([old(1.0), candidate("new", 2, failed_gates=("kl_mean 3 > 1",))], "speed")
    assert (decision.champion, decision.challenger) == (None, "new")
    assert decision.summary == "no given version passes every gate; old stays"
    assert decision.reasons["new"] == "fails: kl_mean 3 > 1"


def test_a_champion_that_fails_its_gates_is_no_bar():
    decision = decide([old(900.0, ("accuracy 0.1 < 0.9",)), candidate("new", 2, 10.0)], "speed")
    assert decision.champion == "new"
    assert decision.summary == "new passes every gate, and the champion until now no longer does"


def test_a_champion_that_fails_its_gates_stays_where_no_other_version_passes():
    failing = candidate("new", 2, failed_gates=("accuracy 0 < 1",))
    decision = decide([old(failed_gates=("accuracy 0.1 < 0.9",)), failing], "speed")
    assert decision.champion is None
    assert decision.reasons["old"] == "champion, and fails: accuracy 0.1 < 0.9"


def test_quality_is_decided_by_the_answers():
    decision = decide([old(10.0), candidate("new", 2, 900.0, right=38)], "quality")
    assert decision.champion is None
    assert "is worse than old (answers: p = " in decision.reasons["new"]
    assert decide([old(10.0), candidate("new", 2, 1.0, right=48)], "quality").champion == "new"


def test_size_is_decided_by_megabytes():
    decision = decide([old(10.0), candidate("new", 2, size_mb=11.0)], "size")
    assert decision.champion is None
    assert decision.reasons["new"] == "has 11.0 MB against 10.0 of old, which is champion"
    assert decide([old(10.0), candidate("new", 2, size_mb=9.0)], "size").champion == "new"


def test_what_cannot_be_timed_is_not_promoted_over_a_champion():
    decision = decide([old(), candidate("new", 2, None)], "speed")
    assert decision.champion is None
    assert decision.reasons["new"] == "could not be timed against old, which is champion"


def test_models_that_answer_too_briefly_to_be_timed_come_last_by_their_first_token():
    timed, late = candidate("timed", 1, 10.0), candidate("late", 2, None, ttft_ms=50.0)
    early = candidate("early", 3, None)
    assert decide([early, timed], "speed").champion == "timed"
    assert decide([late, early], "speed").champion == "early"


def test_the_champion_alone_stays():
    decision = decide([candidate("old", 1, is_champion=True)], "speed")
    assert (decision.champion, decision.challenger) == (None, None)
    assert decision.summary == "old stays: no other version was given"
