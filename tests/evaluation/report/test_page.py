"""The report: is everything that was found in it, and nothing that a browser would run or fetch?"""

import math
import re

import pytest

from steps.evaluation.report import page, plots
from steps.evaluation.results import Evaluation, Figure
from tests.evaluation.report.conftest import Sample, page_without_charts
from tests.evaluation.report.evaluations import changed, pair, with_figures, with_models
from tests.evaluation.report.samples import alien, five, hostile, two

pytestmark = pytest.mark.unit


def test_the_page_runs_nothing_and_fetches_nothing(sample: Sample):
    shown = sample.page
    assert not shown.tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form", "image"}
    references = [value for name, value in shown.attributes if name in ("href", "src", "xlink:href", "srcset", "data")]
    assert references and all(value and value.startswith("#") for value in references)
    assert not any(name.startswith("on") for name, _ in shown.attributes)
    assert all(target.startswith("#") for target in re.findall(r"url\(\s*(.)", shown.source))
    assert "@import" not in shown.source


def test_ids_are_unique_and_every_reference_has_its_target(sample: Sample):
    shown = sample.page
    assert len(shown.ids) == len(set(shown.ids))
    wanted = [value[1:] for name, value in shown.attributes if name in ("href", "xlink:href") and value]
    wanted += re.findall(r"url\(#([^)]+)\)", shown.source)
    wanted += [value for name, value in shown.attributes if name == "aria-labelledby" and value]
    assert set(wanted) <= set(shown.ids)


def test_every_model_and_every_failed_gate_is_on_the_page(sample: Sample):
    for model in sample.evaluation.models:
        assert model.label in sample.page.text
        for gate in model.failed_gates:
            assert gate in sample.page.text


def test_nothing_is_shown_as_none_or_nan(sample: Sample):
    assert not re.search(r"\b(None|nan|null|inf|True|False|Undefined)\b", sample.page.text)


def test_an_evaluation_that_was_read_from_its_file_gives_the_same_page(sample: Sample):
    again = Evaluation.parse(sample.evaluation.to_json(), "evaluation.json")
    assert again == sample.evaluation
    assert page.html(again, sample.charts) == sample.page.source


def test_markup_in_answers_is_text():
    shown = page_without_charts(hostile())
    assert shown.text.count("<script>alert(1)</script>") > 8
    assert "{{ 7 * 7 }}" in shown.text


def test_a_very_long_answer_is_cut_with_its_length():
    shown = page_without_charts(hostile())
    assert "(100,000 characters in all)" in shown.text
    assert "(40,000 characters in all)" in shown.text
    assert len(shown.source) < 60_000


def test_a_page_without_charts_says_why():
    shown = page_without_charts(alien())
    assert "Not drawn: no model was compared with the reference token by token" in shown.text
    assert shown.text.count("Not drawn:") == len(plots.PLOTS)


def test_what_is_missing_is_in_words():
    text = page_without_charts(alien()).text
    assert "their-model is not compared with the reference token by token: its vocabulary has 7 tokens." in text
    assert "their-model may end its answers early" in text
    assert "their-model, decode not measured" in text
    assert "No champion: no model passed every gate" in text
    assert "No pairs: only one model was evaluated." in text
    assert "It reaches an unknown share with their-model of the bandwidth" in text
    assert "Nothing to show: every answer was right" in text


def test_a_failure_under_load_and_an_added_champion_are_in_the_notes():
    evaluation = two()
    first, second = evaluation.models
    lost = changed(first.samples.throughput[2], failed=3, error="ValueError: too many requests")
    samples = changed(first.samples, throughput=(*first.samples.throughput[:2], lost))
    models = changed(first, samples=samples), changed(second, given=False, was_champion=True)
    text = page_without_charts(with_models(evaluation, *models)).text
    assert "transformers-bfloat16 failed to answer 3 requests while throughput was measured." in text
    assert "onnx-genai-int4 was the champion before this evaluation, and was added for comparison." in text


def test_figures_come_with_their_intervals_and_errors():
    evaluation = two()
    first, second = evaluation.models
    second = with_figures(
        second,
        ln_perplexity_ratio=Figure(value=math.log(1.25), standard_error=0.1),
        kl_mean=Figure(value=0.0123, standard_error=0.00045),
    )
    text = page_without_charts(with_models(evaluation, first, second)).text
    assert "97.0% 93.0% to 99.0%" in text
    assert "0.0123 ± 0.000450" in text
    assert "1.2500 ± 0.125" in text
    assert "4,056 3,894 to 4,178" in text


def test_a_small_figure_is_not_rounded_to_nothing():
    evaluation = two()
    first, second = evaluation.models
    first = with_figures(first, rms_dp=4.7e-6, kl_mean=6.08e-7)
    text = page_without_charts(with_models(evaluation, first, second)).text
    assert "0.000470%" in text
    assert "6.08e-7" in text


def test_the_best_of_a_row_is_bold_unless_all_are_the_same():
    evaluation = two()
    models = [with_figures(model, size_mb=2.0) for model in evaluation.models]
    source = page.html(with_models(evaluation, *models), {})
    assert re.search(r'<td class="best">4,056<', source)
    assert not re.search(r'class="best">2\.00<', source)


def test_the_row_of_the_judge_is_there_only_with_a_judge():
    evaluation = two()
    assert "Accuracy by a judge" not in page_without_charts(evaluation).text
    judged = with_models(evaluation, *(with_figures(model, judged=0.5) for model in evaluation.models))
    assert "Accuracy by a judge 50.0%" in page_without_charts(changed(judged, judge="openai:/judge")).text


def test_failed_gates_are_said_at_the_top():
    failed = "onnx-optimum-int8-per_channel-$x$ failed 2 gates: accuracy 0.9 < 0.95; kl_mean could not be measured."
    text = page_without_charts(five()).text
    assert text.index(failed) < text.index("The models compared")
    assert "Every gate passed." not in text
    assert "Every gate passed." in page_without_charts(two()).text


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        ({}, "no worse, as far as 100 questions can tell: p = 0.62"),
        ({"mcnemar_p": 0.004}, "worse: p = 0.004"),
        ({"mcnemar_p": 0.004, "accuracy_difference": 0.1}, "better: p = 0.004"),
        ({}, "accuracy −1.0 points (−3.0 to +1.0); 1 right only here, 2 only there"),
        ({}, "Speed faster: 12.3 times as fast in decode 95% interval 11.9 to 12.6; one-sided test of slower: p = 1"),
        (
            {"speed_ratio": 1.01, "speed_interval": (0.9, 1.1)},
            "Speed no difference shown: 1.01 times as fast in decode",
        ),
        (
            {"speed_ratio": 0.05, "speed_interval": (0.04, 0.1), "speed_p": 0.001},
            "slower: transformers-bfloat16 is 20.0 times as fast in decode 95% interval 10.0 to 25.0; one-sided",
        ),
        ({"only_model_right": 0, "only_against_right": 0}, "right and wrong on the same questions"),
        ({"speed_ratio": None, "speed_interval": None, "speed_p": None}, "Speed not compared"),
    ],
)
def test_a_comparison_is_in_words(difference, words):
    pairs = (pair("onnx-genai-int4", "transformers-bfloat16", **difference),)
    assert words in page_without_charts(changed(two(), pairs=pairs)).text
