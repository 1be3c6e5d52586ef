"""evaluation.json as a typed document, and the table of metrics that it uses."""

import json
import math
from typing import Any

import pytest

from steps.common.errors import StepError
from steps.evaluation.inputs.effort import EFFORTS
from steps.evaluation.metrics import METRICS, REQUESTS_PER_S
from steps.evaluation.results import Evaluation, Figure
from tests.evaluation.report.samples import five, two

pytestmark = pytest.mark.unit


def test_what_was_written_is_read():
    assert Evaluation.parse(five().to_json(), "evaluation.json") == five()


def edited(path: list[str | int], value: Any) -> str:
    """Return evaluation.json with another value in one place; None removes the field."""
    content = json.loads(two().to_json())
    part = content
    for key in path[:-1]:
        part = part[key]
    if value is None:
        del part[path[-1]]
    else:
        part[path[-1]] = value
    return json.dumps(content)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["models", 0, "label"], None, "field models.0.label: Field required"),
        (["models", 1, "samples", "speed", 0, "first_token_s"], "fast", "field models.1.samples.speed.0.first_token_s"),
        (["models", 0, "eos_off"], True, "field models.0.eos_off: Extra inputs are not permitted"),
        (["reference", "figures", "acuracy"], {"value": 1.0}, "acuracy is not in steps/evaluation/metrics.py"),
        (["prefer"], "luck", "field prefer: Input should be 'speed', 'quality' or 'size'"),
    ],
)
def test_a_damaged_document_is_refused_in_a_line_that_names_file_and_field(path, value, message):
    with pytest.raises(StepError) as refusal:
        Evaluation.parse(edited(path, value), "evaluation.json of run 1234")
    line = str(refusal.value)
    assert line.startswith("evaluation.json of run 1234 is damaged") and message in line
    assert line.endswith("run evaluate again") and "\n" not in line


@pytest.mark.parametrize(("version", "shown"), [(None, "None"), (0, "0"), (2, "2")])
def test_an_older_or_newer_document_is_refused_in_a_line(version, shown):
    with pytest.raises(
        StepError, match=f"^evaluation.json has schema_version {shown}; .* reads 1: run evaluate again$"
    ):
        Evaluation.parse(edited(["schema_version"], version), "evaluation.json")


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_figure_that_is_no_number_was_not_measured(number):
    figure = Figure(value=number, standard_error=number, interval=(0.0, number))
    assert figure == Figure(value=None)


def test_every_number_of_clients_of_an_effort_has_its_metric():
    clients = {number for effort in EFFORTS.values() for number in effort.clients}
    assert clients <= set(REQUESTS_PER_S)


def test_each_title_is_defined_once():
    titles = [metric.title for metric in METRICS.values() if metric.definition]
    assert len(titles) == len(set(titles))
    assert len({metric.label for metric in METRICS.values()}) == len(METRICS)
