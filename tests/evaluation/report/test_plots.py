"""The charts: what they draw, and that they fit into any page."""

import re
from xml.etree import ElementTree

import pytest

from steps.evaluation.report import plots
from steps.evaluation.results import Evaluation
from tests.evaluation.report.conftest import Sample, draw_all
from tests.evaluation.report.evaluations import changed, evaluation, model, with_models
from tests.evaluation.report.samples import alien, five, two

pytestmark = pytest.mark.unit


def test_every_chart_names_the_models_that_it_draws_and_follows_the_page(sample: Sample):
    for name, svg in sample.charts.items():
        root = ElementTree.fromstring(svg)
        texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
        assert {shown.label for shown in sample.evaluation.models} <= texts, name
        assert "currentColor" in svg and "var(--series-0, #0072b2)" in svg and "var(--grid" in svg
        assert not re.search(r"#0[147]0[258]0[369]", svg), "the colours that stand for the page's"


def test_a_full_evaluation_has_every_chart_and_one_without_samples_has_none(sample: Sample):
    has_samples = any(shown.samples.speed for shown in sample.evaluation.models)
    assert set(sample.charts) == (set(plots.PLOTS) if has_samples else set())


def test_without_token_scores_there_is_no_histogram():
    without_text = with_models(two(), *(changed(shown, kl_histogram=None) for shown in two().models))
    assert plots.kl_histogram(without_text) is None


def test_the_same_evaluation_gives_the_same_charts():
    again = Evaluation.parse(two().to_json(), "evaluation.json")
    assert plots.latency(again) == plots.latency(two())


def test_quality_is_accuracy_unless_that_is_the_same_for_all():
    assert plots.quality_metric(five()) == "accuracy"
    assert plots.quality_metric(two()) == "kl_mean"
    assert plots.quality_metric(alien()) is None
    assert "PyTorch" in (plots.quality_against_speed(five()) or "")
    assert "KL divergence" in (plots.quality_against_speed(two()) or "")


def test_latency_is_that_of_the_middle_prompt_length():
    before = plots.latency(two())
    for prompt_tokens, changes in ((514, False), (34, False), (130, True)):
        assert (plots.latency(slowed(two(), prompt_tokens)) != before) == changes


def slowed(whole: Evaluation, prompt_tokens: int) -> Evaluation:
    """Return an evaluation whose first model is slower to read prompts of one length."""
    first, *others = whole.models
    speed = [
        changed(sample, first_token_s=1.5 * sample.first_token_s) if sample.prompt_tokens == prompt_tokens else sample
        for sample in first.samples.speed
    ]
    return with_models(whole, changed(first, samples=changed(first.samples, speed=speed)), *others)


def test_one_sample_is_enough_for_a_chart():
    only = model("only", 80, 0.01)
    samples = changed(only.samples, speed=only.samples.speed[:1])
    assert set(draw_all(evaluation(changed(only, samples=samples)))) == set(plots.PLOTS)
