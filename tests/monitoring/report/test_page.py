"""The page of a monitoring: all verdicts are on it, nothing that a browser would run or fetch, markup is text."""

import re

import numpy as np
import pytest

from steps.monitoring.assembly import Findings, Origins, assemble
from steps.monitoring.compare import BaselineValues
from steps.monitoring.quantities import QUANTITIES
from steps.monitoring.report.page import html
from steps.monitoring.report.plots import draw_quantity
from steps.monitoring.request import read_request
from steps.monitoring.results import Baseline, Monitoring
from steps.monitoring.served import Observation, observe
from steps.monitoring.wording import verdict_line
from tests.evaluation.report.conftest import Page
from tests.monitoring.samples import baseline, observations, served

pytestmark = pytest.mark.unit
DRAWN = ("answer_tokens", "ttft_ms", "failed")
OWN = Baseline(
    kind="own evaluation", run="b" * 32, model="onnx-genai-int4", answers=50, cpu="EPYC, 2 usable", reason=""
)
NONE = Baseline(kind="none", run="", model="", answers=0, cpu="", reason="the model has no evaluation")


def monitoring(requests: list[Observation], before: Baseline, values: BaselineValues) -> Monitoring:
    params = {"model": "tiny", "since": "24h", "limit": "300", "judge": "", "fail_on_drift": "false"}
    origins = Origins("a" * 32, "models:/tiny/2", "Default", 0, 86_400_000, "mlflow run . -e monitor -P model=tiny")
    return assemble(read_request(params), origins, Findings(requests, True, before, values))


@pytest.fixture(scope="module")
def shifted() -> Monitoring:
    """Failures and long answers, a flaw with markup in it, and a client that went away."""
    random = np.random.default_rng(1)
    requests = [*observations(random, 60, "failed", 0.5), *observations(random, 60, "answer_tokens", 3.0)]
    hostile = served(200, texts=("",), body={"messages": [{"role": "user", "content": "<script>alert(1)</script>"}]})
    return monitoring([*requests, observe(hostile), observe(served(201, status=499))], OWN, baseline(random))


@pytest.fixture(scope="module")
def page(shifted: Monitoring) -> Page:
    """The page with three of its charts, because each takes half a second."""
    return Page(html(shifted, {one.name: draw_quantity(one) for one in shifted.comparisons if one.name in DRAWN}))


def test_the_page_runs_nothing_and_fetches_nothing(page: Page):
    assert not page.tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form", "image"}
    references = [value for name, value in page.attributes if name in ("href", "src", "xlink:href", "srcset", "data")]
    assert references and all(value and value.startswith("#") for value in references)
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert "@import" not in page.source


def test_ids_are_unique_and_every_reference_has_its_target(page: Page):
    assert len(page.ids) == len(set(page.ids))
    wanted = [value[1:] for name, value in page.attributes if name in ("href", "xlink:href") and value]
    assert set(wanted) | set(re.findall(r"url\(#([^)]+)\)", page.source)) <= set(page.ids)


def test_every_quantity_has_its_verdict_and_its_chart(page: Page, shifted: Monitoring):
    for comparison in shifted.comparisons:
        assert comparison.name not in DRAWN or comparison.sentence[1:] in page.text
        assert QUANTITIES[comparison.name].title in page.text
    assert {f"chart-{name}" for name in DRAWN} <= set(page.ids)
    assert {one.name for one in shifted.drifts} == {"answer_tokens", "failed"}
    assert "Drift in answer length, failed requests: 122 requests of models:/tiny/2" in page.text
    assert not re.search(r"\b(None|nan|null|inf|True|False(?! alarms)|Undefined)\b", page.text)


def test_what_was_not_compared_is_told(page: Page):
    assert "older ones are over the limit of 300; 1 of them are not compared, because the client went away" in page.text
    assert "any of the 9 quantities gives an alarm is at most 5%" in page.text


def test_markup_in_a_question_is_text(page: Page, shifted: Monitoring):
    assert shifted.notable[0].question == "<script>alert(1)</script>"
    assert "<script>alert(1)</script>" in page.text


def test_the_file_gives_the_same_page(shifted: Monitoring):
    again = Monitoring.parse(shifted.to_json(), "monitoring.json")
    assert again == shifted
    assert html(again, {}) == html(shifted, {})


def test_a_page_without_a_baseline_and_without_a_drift():
    quiet = monitoring(observations(np.random.default_rng(0), 40), NONE, BaselineValues())
    text = Page(html(quiet, {})).text
    assert "No drift in 40 requests of models:/tiny/2" in text
    assert "There is no evaluation to compare with: the model has no evaluation." in text
    assert "None: no request failed, and no answer has a flaw or declines." in text


def test_too_few_requests_are_no_verdict():
    few = monitoring(observations(np.random.default_rng(0), 3), NONE, BaselineValues())
    assert verdict_line(few) == "too few values in 3 requests of models:/tiny/2 for a verdict"
