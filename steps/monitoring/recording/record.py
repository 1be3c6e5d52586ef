"""Record a monitoring: on its run, and as tags of the registered version."""

from typing import TYPE_CHECKING

from steps.evaluation.report.formatting import inline
from steps.evaluation.report.tables import Table, markdown_table
from steps.monitoring.compare import level_of
from steps.monitoring.quantities import QUANTITIES
from steps.monitoring.recording.watched import Watched
from steps.monitoring.report.page import html
from steps.monitoring.report.plots import draw_quantities
from steps.monitoring.results import Monitoring
from steps.monitoring.wording import verdict_line
from steps.runs.tags import MAX_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient

MONITORING = "monitoring.json"


def log_monitoring(client: "MlflowClient", monitoring: Monitoring) -> None:
    """Log the metrics, the charts, the page, and last monitoring.json."""
    client.log_metric(monitoring.run, "requests", monitoring.requests.read)
    client.log_metric(monitoring.run, "drifts", len(monitoring.drifts))
    for comparison in monitoring.comparisons:
        client.log_metric(monitoring.run, f"evidence/{comparison.name}", max(comparison.capital, default=1.0))
        if (level := level_of(comparison)) is not None:
            client.log_metric(monitoring.run, comparison.name, level)
    charts = draw_quantities(monitoring)
    for name, svg in charts.items():
        client.log_text(monitoring.run, svg, f"plots/{name}.svg")
    client.log_text(monitoring.run, html(monitoring, charts), "report.html")
    client.log_text(monitoring.run, monitoring.to_json(), MONITORING)


def description(monitoring: Monitoring) -> str:
    """Return the verdict and a row for each quantity, as Markdown."""
    rows = tuple((QUANTITIES[one.name].title, one.verdict, one.sentence) for one in monitoring.comparisons)
    table = markdown_table(Table(("quantity", "verdict", "in words"), rows))
    return f"**{inline(verdict_line(monitoring))}**\n\n{table}\n\nThe charts are in `report.html`."


def tag_version(client: "MlflowClient", monitoring: Monitoring, watched: Watched) -> None:
    """Write the verdict on the registered version, if one was watched. No alias moves."""
    if watched.version:
        for key, value in (("monitoring", verdict_line(monitoring)[:MAX_TAG]), ("monitoring_run", monitoring.run)):
            client.set_model_version_tag(watched.registered_model, watched.version, key, value)
