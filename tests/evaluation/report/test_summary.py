"""The verdict and the short table, in terminals and as Markdown."""

import re

import pytest

from steps.evaluation.report.formatting import capitalised
from steps.evaluation.report.summary_page import markdown
from steps.evaluation.report.tables import comparison_table, outcome, text_table
from steps.evaluation.report.wording import verdict_sentence
from steps.evaluation.results import Evaluation, GateResult
from tests.evaluation.report.conftest import Sample, page_without_charts
from tests.evaluation.report.evaluations import changed, with_models
from tests.evaluation.report.samples import alien, five, hostile, two

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("champion", "sentence"),
    [
        ({"label": "onnx-genai-int4"}, "champion: onnx-genai-int4 (version 4 of tiny-phi3)"),
        (
            {"label": "onnx-genai-int4", "registered_model": "", "version_after": None},
            "champion: onnx-genai-int4",
        ),
        (
            {"label": None},
            "champion: version 4 of tiny-phi3, as before; it could not be evaluated",
        ),
        ({"label": None, "version_after": None}, "no champion: no registered version passed every gate"),
    ],
)
def test_the_verdict_comes_first_in_the_same_words_everywhere(champion, sentence):
    evaluation = two()
    evaluation = changed(evaluation, champion=changed(evaluation.champion, **champion))
    assert verdict_sentence(evaluation) == sentence
    assert f"Evaluation of tiny-phi3 {capitalised(sentence)} It passes" in page_without_charts(evaluation).text
    assert markdown(evaluation).startswith(f"**{capitalised(sentence)}**: It passes every gate")


def test_a_champion_that_stays_because_every_given_model_failed_is_said_to_stay():
    first, second = two().models
    failed = changed(first, gates=(GateResult(text="accuracy 0.1 < 0.9", passed=False),))
    evaluation = with_models(two(), failed, changed(second, given=False, was_champion=True))
    assert verdict_sentence(evaluation).endswith(", as before: no given model passed every gate")
    assert verdict_sentence(alien()) == "no champion: no model passed every gate"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"alias": "", "is_champion": False}, "passed"),
        ({"alias": "previous", "is_champion": False}, "previous"),
        ({"alias": "", "is_champion": True}, "champion"),
        ({"gates": (GateResult(text="a 1 > 0", passed=False),), "alias": "", "is_champion": False}, "failed: a 1 > 0"),
        ({"gates": (GateResult(text="a 1 > 0", passed=False),), "is_champion": True}, "champion, failed: a 1 > 0"),
    ],
)
def test_what_became_of_a_model(fields, words):
    assert outcome(changed(two().models[0], **fields)) == words


def test_the_terminal_and_markdown_show_the_same_cells(sample: Sample):
    evaluation = sample.evaluation
    table = comparison_table(evaluation)
    shown = [re.split(r" {2,}", line) for line in text_table(table).splitlines()]
    assert [cells for cells in shown if "onnx" in cells[0]] == [list(row) for row in table.rows if "onnx" in row[0]]
    lines = [line for line in markdown(evaluation).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(table.rows)
    assert lines[0] == f"| {' | '.join(f'{column}&emsp;' for column in table.columns)} |"


def test_a_terminal_has_the_columns_and_the_digits_of_the_page():
    heading, slow, fast = text_table(comparison_table(two())).splitlines()
    assert re.split(r" {2,}", heading) == [
        "model",
        "accuracy",
        "agreement",
        "KL",
        "TTFT ms",
        "decode tok/s",
        "memory MB",
        "size MB",
        "verdict",
    ]
    cells = re.split(r" {2,}", fast)
    assert (cells[0], cells[3], cells[5], cells[-1]) == ("onnx-genai-int4", "0.0120", "4,056", "champion")
    assert len({line.index(" 9") for line in (slow, fast)}) == 1, "figures are aligned"


def test_markdown_is_short_and_has_the_table_and_the_failures():
    lines = markdown(five()).splitlines()
    assert len(lines) <= 25
    assert sum(line.startswith("|") for line in lines) == 2 + 5
    assert any("size_mb 7640 &gt; 4000" in line for line in lines)
    assert "`report.html`" in lines[-1]


def test_markup_in_markdown_is_text():
    text = markdown(hostile())
    assert "<script>" not in text and "<img" not in text
    row = next(line for line in text.splitlines() if line.startswith("| &lt;script"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 10  # nine columns


def test_what_is_missing_is_in_words():
    assert "not measured" in markdown(alien())
    assert "not compared" in markdown(alien())


def test_nothing_is_shown_as_none_or_nan(sample: Sample):
    assert not re.search(r"\b(None|nan|null|inf)\b", markdown(sample.evaluation))


def test_no_text_is_left_out_of_what_was_measured():
    evaluation: Evaluation = two()
    assert "2,048 tokens of `texts/general.txt`" in markdown(evaluation)
    without = changed(evaluation, text=changed(evaluation.text, scored_tokens=0))
    assert "KL divergence from PyTorch" not in markdown(without)
