"""Gates by table, and the choice of a champion."""

import numpy as np
import pytest

from steps.common.errors import StepError
from steps.evaluation.verdict.gates import Gate, read_gates
from steps.evaluation.verdict.promotion import decide

METRICS = {"accuracy": 0.9, "ttft_ms": 5.0, "decode_tokens_per_s": None, "size_mb": 1.0, "kl_mean": float("nan")}
REFERENCE = {"accuracy": 0.92, "perplexity": 8.0}
CHAMPION = {"accuracy": 0.9, "ttft_ms": 4.0, "decode_tokens_per_s": 10.0}


@pytest.mark.parametrize(
    ("gate", "passed", "text"),
    [
        (Gate("accuracy", "min", 0.9), True, "accuracy 0.9 >= 0.9"),
        (Gate("accuracy", "min", 0.91), False, "accuracy 0.9 < 0.91"),
        (Gate("ttft_ms", "max", 5.0), True, "ttft_ms 5 <= 5"),
        (Gate("ttft_ms", "max", 4.0), False, "ttft_ms 5 > 4"),
        (Gate("decode_tokens_per_s", "min", 0.0), False, "decode_tokens_per_s could not be measured"),
        (Gate("kl_mean", "max", 1.0), False, "kl_mean could not be measured"),
        (Gate("same_top", "min", 0.0), False, "same_top could not be measured"),
        (Gate("accuracy", "min", float("nan")), False, "accuracy 0.9 < nan"),
        (Gate("accuracy", "min", -0.02, "reference", "difference"), True, "accuracy - reference's -0.02 >= -0.02"),
        (Gate("accuracy", "min", -0.01, "reference", "difference"), False, "accuracy - reference's -0.02 < -0.01"),
        (Gate("ttft_ms", "max", 1.25, "champion", "ratio"), True, "ttft_ms / champion's 1.25 <= 1.25"),
        (Gate("ttft_ms", "max", 1.2, "champion", "ratio"), False, "ttft_ms / champion's 1.25 > 1.2"),
        (Gate("decode_tokens_per_s", "min", 0.9, "champion", "ratio"), False, "could not be measured"),
        (Gate("size_mb", "max", 1.0, "champion", "ratio"), False, "size_mb of the champion could not be measured"),
    ],
)
def test_gates(gate, passed, text):
    found = gate.judge(METRICS, REFERENCE, CHAMPION)
    assert found["passed"] is passed
    assert text in found["text"]


def test_without_a_champion_a_gate_against_it_holds_nobody_to_anything():
    found = Gate("ttft_ms", "max", 0.1, "champion", "ratio").judge(METRICS, REFERENCE, None)
    assert found == {"text": "ttft_ms against the champion: there is none yet", "passed": True}


def test_every_form_is_read(tmp_path):
    (tmp_path / "gates.yaml").write_text(
        "accuracy: {min: 0.8, max: 1, reference: {min_difference: -0.02}}\n"
        "decode_tokens_per_s: {champion: {min_ratio: 0.95, max_ratio: 9}}\n"
    )
    assert read_gates(tmp_path / "gates.yaml") == [
        Gate("accuracy", "min", 0.8),
        Gate("accuracy", "max", 1.0),
        Gate("accuracy", "min", -0.02, "reference", "difference"),
        Gate("decode_tokens_per_s", "min", 0.95, "champion", "ratio"),
        Gate("decode_tokens_per_s", "max", 9.0, "champion", "ratio"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected at least one"),
        ("- a", "expected at least one"),
        ("a: [", "is not YAML"),
        ("acuracy: {min: 1}", "did you mean 'accuracy'"),
        ("accuracy: 1", "expected such as {min"),
        ("accuracy: {least: 1}", "expected min or max"),
        ("accuracy: {min: high}", "expected min or max and a number"),
        ("accuracy: {min: true}", "expected min or max and a number"),
        ("ttft_ms: {reference: {max_ratio: 1}}", "the reference is not measured so"),
        ("accuracy: {champion: {least: 1}}", "expected one of min_difference"),
        ("accuracy: {champion: 1}", "expected such as"),
    ],
)
def test_bad_gates_are_refused(tmp_path, text, message):
    (tmp_path / "gates.yaml").write_text(text)
    with pytest.raises(StepError, match=message):
        read_gates(tmp_path / "gates.yaml")


def samples(rate: float, seed: int) -> list[dict]:
    """Ten repetitions that scatter by 3%."""
    scatter = np.exp(0.03 * np.random.default_rng(seed).standard_normal(10))
    return [
        {
            "rep": rep,
            "prompt_tokens": 9,
            "ttft_s": 0.1,
            "known_s": 0.1,
            "whole_s": 0.1 + 32 / rate * s,
            "tokens": 33,
        }
        for rep, s in enumerate(scatter)
    ]


def entry(label: str, version: int, rate: float | None = 100.0, **more) -> dict:
    metrics = {"decode_tokens_per_s": rate, "ttft_ms": 9.0, "accuracy": 0.9, "size_mb": 10.0} | more.pop("metrics", {})
    return {
        "model": label,
        "version": version,
        "given": True,
        "incumbent": False,
        "failed_gates": [],
        "metrics": metrics,
    } | more


def evidence(*entries: dict, right: dict | None = None) -> dict:
    return {
        e["model"]: {
            "speed": samples(e["metrics"]["decode_tokens_per_s"] or 1.0, e["version"]),
            "right": (right or {}).get(e["model"], [True] * 50),
            "nll": None,
        }
        for e in entries
    }


def decided(*entries: dict, prefer: str = "speed", right: dict | None = None):
    return decide(list(entries), evidence(*entries, right=right), prefer)


def test_the_first_champion_is_the_fastest_that_passes():
    found = decided(entry("slow", 1, 50.0), entry("fast", 2), entry("wrong", 3, 900.0, failed_gates=["accuracy 0 < 1"]))
    assert (found.champion, found.challenger) == ("fast", "slow")
    assert found.reasons["slow"] == "passes every gate, and decodes 50 tokens/s against 100 of fast"
    assert found.reasons["wrong"] == "fails: accuracy 0 < 1"


def test_a_new_version_that_is_no_slower_takes_over_and_a_slower_one_challenges():
    old = entry("old", 1, 100.0, incumbent=True, given=False)
    found = decided(old, entry("new", 2, 99.5))
    assert (found.champion, found.challenger) == ("new", None)
    assert "is no slower than old" in found.summary
    found = decided(old, entry("new", 2, 80.0))
    assert (found.champion, found.challenger) == (None, "new")
    assert "is slower than old (0.8" in found.reasons["new"]
    assert found.summary.startswith("old stays: new is slower than old")


def test_an_older_version_must_be_better_or_two_equal_ones_would_take_turns():
    newer = entry("newer", 2, 100.0, incumbent=True)
    assert decided(entry("older", 1, 100.5), newer).champion is None
    assert "is older" in decided(entry("older", 1, 100.5), newer).reasons["older"]
    found = decided(entry("older", 1, 150.0), newer)
    assert found.champion == "older"
    assert "is older, and better beyond noise: it is no slower than newer (1." in found.summary


def test_a_version_that_fails_its_gates_is_never_promoted():
    old = entry("old", 1, 1.0, incumbent=True, given=False)
    found = decided(old, entry("new", 2, failed_gates=["kl_mean 3 > 1"]))
    assert (found.champion, found.challenger) == (None, "new")
    assert found.summary == "no given version passes every gate; old stays"
    assert found.reasons["new"] == "fails: kl_mean 3 > 1"


def test_a_champion_that_fails_its_gates_is_no_bar():
    old = entry("old", 1, 900.0, incumbent=True, given=False, failed_gates=["accuracy 0.1 < 0.9"])
    assert decided(old, entry("new", 2, 10.0)).champion == "new"


def test_quality_is_decided_by_the_answers():
    old = entry("old", 1, 10.0, incumbent=True, given=False)
    worse = {"new": [True] * 38 + [False] * 12}
    assert decided(old, entry("new", 2, 900.0), prefer="quality", right=worse).champion is None
    noise = {"new": [True] * 48 + [False] * 2}
    assert decided(old, entry("new", 2, 1.0), prefer="quality", right=noise).champion == "new"


def test_size_is_decided_by_megabytes():
    old = entry("old", 1, 10.0, incumbent=True, given=False)
    larger, smaller = (entry("new", 2, metrics={"size_mb": size}) for size in (11.0, 9.0))
    assert decided(old, larger, prefer="size").champion is None
    assert decided(old, smaller, prefer="size").champion == "new"


def test_what_cannot_be_timed_is_not_promoted_over_a_champion():
    old = entry("old", 1, incumbent=True, given=False)
    new = entry("new", 2, None)
    found = decide([old, new], evidence(old, new) | {"new": {"speed": [], "right": [True], "nll": None}}, "speed")
    assert found.champion is None
    assert found.reasons["new"] == "could not be timed against old, which is champion"


def test_models_that_answer_too_briefly_to_be_timed_come_last_by_their_first_token():
    timed, late = entry("timed", 1, 10.0), entry("late", 2, None, metrics={"ttft_ms": 50.0})
    early = entry("early", 3, None)
    assert decided(early, timed).champion == "timed"
    assert decided(late, early).champion == "early"


def test_the_champion_alone_stays():
    found = decided(entry("old", 1, incumbent=True))
    assert (found.champion, found.challenger, found.summary) == (None, None, "old stays: no other version was given")
