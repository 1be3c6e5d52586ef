"""The evaluations of samples.py with their charts and their pages, each made once."""

from dataclasses import dataclass
from html.parser import HTMLParser

import pytest

from steps.evaluation.report import page, plots
from steps.evaluation.results import Evaluation
from tests.evaluation.report.samples import SAMPLES


class Page(HTMLParser):
    """What a browser makes of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(source)
        self.ids = [value for name, value in self.attributes if name == "id"]
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        if self.lasttag != "style":
            self.words.append(data)


def draw_all(evaluation: Evaluation) -> dict[str, str]:
    """Return the charts that can be drawn."""
    return {name: svg for name, draw in plots.PLOTS.items() if (svg := draw(evaluation))}


def page_without_charts(evaluation: Evaluation) -> Page:
    """Return the page without charts, which take a second."""
    return Page(page.html(evaluation, {}))


@dataclass(frozen=True)
class Sample:
    """An evaluation, its charts and its page."""

    evaluation: Evaluation
    charts: dict[str, str]
    page: Page


@pytest.fixture(scope="package", params=SAMPLES)
def sample(request: pytest.FixtureRequest) -> Sample:
    """Each of the evaluations."""
    evaluation = SAMPLES[request.param]()
    charts = draw_all(evaluation)
    return Sample(evaluation, charts, Page(page.html(evaluation, charts)))
