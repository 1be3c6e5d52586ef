"""What a person sees of a `main` run: its page in MLflow, and the last lines in the terminal."""

import json
import shlex
from collections.abc import Sequence

from steps.evaluation.metrics import METRICS
from steps.evaluation.report.formatting import capitalised
from steps.evaluation.report.tables import Table, comparison_table, markdown_table, text_table, value_text
from steps.evaluation.report.wording import verdict_sentence
from steps.evaluation.results import EvaluatedModel, Evaluation
from steps.registry.aliases import CHAMPION, champion_version
from steps.runs.child_runs import DoneStep
from steps.runs.step import Step
from steps.runs.tags import SUMMARY_TAG

_QUESTION = {"messages": [{"role": "user", "content": "What is the capital of France?"}]}


class RunPage:
    """The page of one `main` run."""

    def __init__(self, step: Step, profile: str, note: str) -> None:
        """
        Args:
            step: the open run of `main`.
            profile: the profile's name.
            note: the user's note for the page; empty for none.
        """
        self._step, self._profile, self._note = step, profile, note

    def write(self, done: Sequence[DoneStep], evaluation: Evaluation | None) -> None:
        """Write the verdict, the comparison, each step with a link to its run, and the note; tag the steps' run IDs.

        Args:
            done: the steps that have run or were reused so far.
            evaluation: None until `evaluate` has finished.
        """
        run_ids: dict[str, list[str]] = {}
        for name, run, _ in done:
            run_ids.setdefault(f"{name}_run", []).append(run.info.run_id)
        self._step.tag(profile=self._profile, **{key: ",".join(ids) for key, ids in run_ids.items()})
        outcome = verdict_sentence(evaluation) if evaluation else "not evaluated"
        parts = _verdict(evaluation, outcome) if evaluation else []
        if done:
            parts += ["**Steps**", markdown_table(self._steps_table(done))]
        parts += [f"**Note**: {self._note}"] if self._note else []
        self._step.summarise(f"profile {self._profile}, {outcome}", "\n\n".join(parts))

    def _steps_table(self, done: Sequence[DoneStep]) -> Table:
        experiment = self._step.run.info.experiment_id
        rows = []
        for name, run, reused in done:
            page = f"#/experiments/{run.info.experiment_id or experiment}/runs/{run.info.run_id}"
            summary = run.data.tags.get(SUMMARY_TAG, "")
            rows.append((name, f"[{run.info.run_id[:8]}]({page})", "reused" if reused else "ran", summary))
        return Table(("step", "run", "", "result"), tuple(rows))

    def log_comparison(self, evaluation: Evaluation) -> None:
        """Log the comparison as a table, link the models to this run, and log the champion's metrics."""
        import pandas as pd
        from mlflow.entities import LoggedModelOutput

        client, run_id = self._step.client, self._step.run_id
        models = [LoggedModelOutput(model.model_id, 0) for model in evaluation.models if model.model_id]
        client.log_outputs(run_id, models)  # so that this run's page leads to the models
        table = comparison_table(evaluation)
        client.log_table(run_id, pd.DataFrame(table.rows, columns=list(table.columns)), "comparison.json")
        champion = evaluation.champion_model
        self._step.tag(champion=champion.label if champion else "none")
        for name, figure in (champion.figures if champion else {}).items():
            if figure.value is not None:
                client.log_metric(run_id, f"champion/{name}", figure.value)

    def closing_lines(self, evaluation: Evaluation) -> list[str]:
        """Return the comparison, and the commands that show the run, serve the champion and ask it a question."""
        prefix, look = self._store_commands()
        lines = ["", text_table(comparison_table(evaluation)), "", f"look   {look}"]
        champion = evaluation.champion_model
        if not champion:
            return [*lines, verdict_sentence(evaluation)]
        uri, note = self._champion_uri(evaluation, champion)
        ask = f"curl -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(_QUESTION))}"
        return [
            *lines,
            *note,
            f"serve  {prefix}mlflow models serve -m {uri} --env-manager uv -p 5001",
            f"ask    {ask} http://127.0.0.1:5001/invocations",
        ]

    def _store_commands(self) -> tuple[str, str]:
        """Return how a command names the tracking store, and how a person looks at this run."""
        import mlflow

        store = mlflow.get_tracking_uri()
        page = f"#/experiments/{self._step.run.info.experiment_id}/runs/{self._step.run_id}"
        prefix = f"MLFLOW_TRACKING_URI={shlex.quote(store)} "
        if store.startswith("sqlite:"):
            return (
                prefix,
                f"mlflow ui --backend-store-uri {shlex.quote(store)}   then open http://127.0.0.1:5000/{page}",
            )
        if store.startswith("http") and "@" not in store:
            return prefix, f"{store.rstrip('/')}/{page}"
        # Databricks, or an address with a password in it
        return "", f"run {self._step.run_id} in the MLflow UI of your tracking store"

    def _champion_uri(self, evaluation: Evaluation, champion: EvaluatedModel) -> tuple[str, list[str]]:
        """Return the URI that serves the champion, and a note if its alias is not where the evaluation left it."""
        decision = evaluation.champion
        name = decision.registered_model
        if not name:
            return champion.uri, []
        version_now = champion_version(self._step.client, name) if decision.has_aliases else None
        if version_now == str(champion.version):
            return f"models:/{name}@{CHAMPION}", []
        moved = f"note   the alias champion has been moved since, to {version_now or 'no version'}"
        return f"models:/{name}/{champion.version}", [moved] if decision.has_aliases else []


def _verdict(evaluation: Evaluation, outcome: str) -> list[str]:
    """Return the parts of the page that say which model won, and by which figures."""
    headline = f"**{capitalised(outcome)}**"
    if champion := evaluation.champion_model:
        accuracy, agreement, speed, memory = (
            value_text(champion, METRICS[name])
            for name in ("accuracy", "agreement", "decode_tokens_per_s", "peak_memory_mb")
        )
        headline += f", {accuracy} exact answers, {agreement} as in PyTorch, {speed} tokens/s in {memory} MB"
    return [headline, markdown_table(comparison_table(evaluation))]
