"""monitor as a user runs it: a served champion, requests as in its evaluation, then other requests."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest
import requests

from steps.monitoring.results import Monitoring
from tests.checkout import ROOT, Project
from tests.fakes.servers import free_port
from tests.serving.test_serve import start, wait_for_status

pytestmark = pytest.mark.e2e
MODEL = "models:/tiny-phi3@champion"
KEY = "planted-key-of-the-server"
SECRETS = (KEY, "ann.lee@example.org", "sk-proj-abcdefghijklmnop1234", "192.168.17.4")
QUESTIONS = [json.loads(line)["messages"] for line in (ROOT / "params/evalsets/tiny-qa.jsonl").read_text().splitlines()]


@dataclass(frozen=True)
class Served:
    """The running server of the champion."""

    url: str

    def ask(self, messages: list[dict], **fields: object) -> int:
        """Ask, and return the status."""
        body = {"messages": messages, "stream": True} | fields
        headers = {"Authorization": f"Bearer {KEY}"}
        return requests.post(f"{self.url}/v1/chat/completions", json=body, headers=headers, timeout=60).status_code

    def wait_for_traces(self, count: int) -> None:
        """Wait until the server has written so many traces."""
        for _ in range(1200):
            lines = requests.get(f"{self.url}/metrics", headers={"x-api-key": KEY}, timeout=60).text.splitlines()
            if f"phi_traces_written_total {count}.0" in lines:
                return
            time.sleep(0.1)
        raise AssertionError("the traces were not written")


@pytest.fixture(scope="module")
def served(project: Project, cold) -> Iterator[Served]:
    """The server, which has answered 40 questions of the evaluation set."""
    port = free_port()
    process = start(project, f"--model={MODEL}", f"--port={port}", "--trace=1", PHI_MLFLOW_API_KEY=KEY)
    served = Served(f"http://127.0.0.1:{port}")
    wait_for_status(served.url, 200)
    assert [served.ask(messages) for messages in QUESTIONS[2:202:5]] == [200] * 40
    served.wait_for_traces(40)
    yield served
    process.terminate()
    process.communicate(timeout=120)


def found(project: Project) -> Monitoring:
    """Return what the latest monitoring found."""
    text = mlflow.artifacts.load_text(project.latest("monitor").info.artifact_uri + "/monitoring.json")
    return Monitoring.parse(text, "monitoring.json")


def champion(project: Project):
    return project.client.get_model_version_by_alias("tiny-phi3", "champion")


def test_requests_as_in_the_evaluation_are_no_drift(project: Project, served: Served):
    result = project.run("monitor", model=MODEL, since="2h")
    assert result.code == 0, result.err
    monitoring = found(project)
    assert monitoring.requests.read == 40
    assert (monitoring.baseline.kind, monitoring.baseline.answers) == ("own evaluation", 50)
    # The machine of the tests may be busier than it was while the champion was evaluated.
    assert {drift.name for drift in monitoring.drifts} <= {"ttft_ms", "tpot_ms"}
    for comparison in monitoring.comparisons:
        assert len(comparison.values) == 40 and comparison.baseline, comparison.name
        assert comparison.sentence in result.out
    run = project.latest("monitor")
    assert (run.info.status, run.data.params["since"]) == ("FINISHED", "2h")
    assert run.data.metrics["requests"] == 40
    assert run.data.metrics["prompt_tokens"] == pytest.approx(14, abs=3)
    tags = champion(project).tags
    assert tags["monitoring_run"] == run.info.run_id
    assert tags["monitoring"].endswith(f"40 requests of models:/tiny-phi3/{champion(project).version}")


def test_other_requests_are_a_drift_and_no_secret_is_kept(project: Project, served: Served, tmp_path: Path):
    version = champion(project).version
    secrets = f"Write to {SECRETS[1]} at {SECRETS[3]}, key {SECRETS[2]}. "
    for number, messages in enumerate(QUESTIONS[:40]):
        longer = [{"role": "user", "content": 3 * secrets + messages[-1]["content"]}]
        assert served.ask(longer, temperature=9 if number % 2 else 0) == (400 if number % 2 else 200)
    served.wait_for_traces(80)

    result = project.run_module("monitor", model="tiny-phi3", since="2h", fail_on_drift="true")
    assert result.code == 1
    assert "monitor: drift in prompt length, " in result.err and "refused requests" in result.err
    monitoring = found(project)
    drifts = {drift.name: drift for drift in monitoring.drifts}
    for name in ("prompt_tokens", "refused"):
        assert 38 <= (drifts[name].since or 0) <= 50, drifts[name].sentence
    run = project.latest("monitor")
    assert (run.info.status, run.data.tags["rejected"]) == ("FAILED", "true")
    assert champion(project).version == version, "no alias moves"

    kept = [json.dumps([run.data.tags, run.data.params]), result.out, result.err]
    folder = Path(mlflow.artifacts.download_artifacts(run.info.artifact_uri, dst_path=str(tmp_path)))
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"report.html", "monitoring.json", "prompt_tokens.svg", "output.log"}
    kept += [path.read_text() for path in files]
    traces = project.client.search_traces(locations=["0"], filter_string="tags.`phi.model_name` = 'tiny-phi3'")
    assert len(traces) == 80
    kept += [trace.to_json() for trace in traces]
    assert [secret for secret in SECRETS if any(secret in text for text in kept)] == []


def test_what_cannot_be_monitored_is_one_line(project: Project, served: Served):
    for model, since, message in (
        ("models:/tiny-phi3@nobody", "24h", "alias nobody not found"),
        ("models:/tiny-phi3/1", "yesterday", "since is 'yesterday'; expected minutes, hours"),
        (
            str(ROOT),
            "24h",
            "in the last 24h left a trace in the experiment 'Default': serve the model with -P trace",
        ),
    ):
        result = project.run_module("monitor", model=model, since=since)
        assert result.code == 1
        (line,) = result.error_lines()
        assert line.startswith("monitor: ") and message in line
