"""The open run of a step, as the work of an entry point uses it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steps.runs.console import Console
from steps.runs.redaction import redact
from steps.runs.tags import NOTE_TAG, PARENT_TAG, SUMMARY_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


class Step:
    """An open run of one entry point.

    Attributes:
        entry_point: its name in MLproject.
        params: the parameters by name; empty until they are checked.
        run, run_id: the run as it was when it was opened, and its ID.
        client: a client of the tracking store.
        console: what the user sees.
        scratch: a folder for temporary files, removed when the process ends.
    """

    def __init__(self, entry_point: str, run: "Run", console: Console, scratch: Path) -> None:
        import mlflow

        self.entry_point = entry_point
        self.params: dict[str, str] = {}
        self.run = run
        self.run_id: str = run.info.run_id
        self.client: MlflowClient = mlflow.MlflowClient()
        self.console = console
        self.scratch = scratch

    @property
    def parent_run_id(self) -> str | None:
        """Return the ID of the `main` run that started this run; None if the step runs alone."""
        return self.run.data.tags.get(PARENT_TAG)

    def tag(self, **tags: str) -> None:
        """Set tags of the run."""
        for key, value in tags.items():
            self.client.set_tag(self.run_id, key, value)

    def summarise(self, line: str, description: str = "") -> None:
        """Record the result of the step: one line for terminals and lists, Markdown for the run's page."""
        self.tag(**{SUMMARY_TAG: line, NOTE_TAG: description or line})

    def log_json(self, content: Any, path: str) -> None:
        """Log `content` as an indented JSON artifact, without secrets."""
        text = json.dumps(content, indent=2, ensure_ascii=False)
        self.client.log_text(self.run_id, redact(text) + "\n", path)
