"""Ask an evaluation set through mlflow.genai.evaluate: an evaluation run of its own, and a trace for every answer."""

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from steps.common.errors import StepError
from steps.runs.step import Step

_WORKERS = "1"  # a model answers one question at a time; the last one's scores are written meanwhile


class Question(Protocol):
    """What evalset.Item is."""

    messages: list[dict[str, Any]]
    kind: str
    expected_text: str

    def mistake(self, answer: str) -> str:
        """Why an answer is wrong; empty where it is right."""


def import_early() -> threading.Thread:
    """Begin to import what mlflow.genai.evaluate will, which takes seconds, while something else is waited for."""

    def load() -> None:
        import databricks.sdk  # noqa: F401
        import mlflow.genai.evaluation.harness
        import mlflow.genai.scorers  # noqa: F401

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    return thread


def ask_through_mlflow(
    step: Step,
    label: str,
    model_id: str | None,
    items: Sequence[Question],
    reference: list[str],
    answer: Callable[[list[dict[str, Any]]], dict[str, Any]],
    judge: str,
    progress: Callable[[], object],
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Answers in the set's order.

    Args:
        reference: the reference's answers.
        answer: of worker.Worker.answer, for a conversation.
        judge: a model for MLflow's judge of correctness, such as openai:/gpt-5 or endpoints:/name; empty for none.

    Returns:
        The answers; and `run_id`, the evaluation run, a child of the step's, with `judged`, the share that the judge
        calls correct, or None.

    Raises:
        StepError: the model's process ended, or the judge could not be asked.
    """
    os.environ |= {
        "MLFLOW_GENAI_EVAL_MAX_WORKERS": _WORKERS,
        "MLFLOW_GENAI_EVAL_PREDICT_RATE_LIMIT": "0",  # its default is meant for remote services
        "MLFLOW_GENAI_EVAL_SKIP_TRACE_VALIDATION": "true",
    }
    import mlflow
    from mlflow.entities import Feedback, SpanType
    from mlflow.genai.scorers import scorer
    from mlflow.tracing.constant import SpanAttributeKey

    found: dict[int, dict[str, Any]] = {}
    ended: list[StepError] = []

    @mlflow.trace(name=label, span_type=SpanType.CHAT_MODEL)
    def predict(messages: list[dict[str, Any]], number: int) -> str:
        try:
            made = found[number] = answer(messages)
        except StepError as error:  # the model's process has ended, which the harness would take for an answer's error
            ended.append(error)
            raise
        progress()
        span = mlflow.get_current_active_span()
        if span and made.get("completion_tokens") is not None:
            sent, written = made["prompt_tokens"] or 0, made["completion_tokens"]
            usage = {"input_tokens": sent, "output_tokens": written, "total_tokens": sent + written}
            span.set_attribute(SpanAttributeKey.CHAT_USAGE, usage)
        if "error" in made:
            raise RuntimeError(made["error"])
        return made["text"]

    @scorer
    def right(inputs: dict[str, Any], outputs: str | None) -> Feedback:
        mistake = _mistake(items[inputs["number"]], outputs)
        return Feedback(value=not mistake, rationale=mistake or items[inputs["number"]].kind)

    @scorer
    def agreement(inputs: dict[str, Any], outputs: str | None) -> Feedback:
        own = reference[inputs["number"]].strip()
        return Feedback(value=(outputs or "").strip() == own, rationale=f"the reference answers {own!r}")

    scorers: list[Any] = [right, agreement]
    if judge:
        from mlflow.genai.scorers import Correctness

        scorers.append(Correctness(name="judged", model=judge))
    rows = [
        {
            "inputs": {"messages": item.messages, "number": number},
            "expectations": {"expected_response": item.expected_text},
        }
        for number, item in enumerate(items)
    ]
    with mlflow.start_run(run_name=label, nested=True, experiment_id=step.run.info.experiment_id) as run:
        result = mlflow.genai.evaluate(data=rows, predict_fn=predict, scorers=scorers, model_id=model_id)
        if ended:
            raise ended[0]
        judged = result.metrics.get("judged/mean")
        if judge and judged is None:
            raise StepError(f"judge {judge!r} answered nothing: {_judge_error(result)}")
    return [found[number] for number in range(len(items))], {"run_id": run.info.run_id, "judged": judged}


def _mistake(item: Question, text: str | None) -> str:
    return "the model failed" if text is None else item.mistake(text)


def _judge_error(result: Any) -> str:
    """The first error of the judge, as one line."""
    for trace in result.result_df.get("trace", []):
        for assessment in trace.info.assessments or []:
            if assessment.name == "judged" and assessment.error:
                return " ".join(str(assessment.error.error_message).split())[:500]
    return "see the traces of its evaluation run"
