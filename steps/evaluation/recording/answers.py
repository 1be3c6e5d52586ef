"""Ask the questions through mlflow.genai.evaluate: a run for each model, with a trace of each answer."""

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from steps.common.errors import StepError
from steps.evaluation.assembly import Interview
from steps.evaluation.inputs.question import Question
from steps.evaluation.inputs.reading import Messages
from steps.evaluation.measure.measuring import Ask
from steps.evaluation.measure.model_process import Answer

if TYPE_CHECKING:
    from mlflow.genai.scorers import Scorer

_SETTINGS = {
    # A model answers one question at a time. The scores of the last answer are written meanwhile.
    "MLFLOW_GENAI_EVAL_MAX_WORKERS": "1",
    "MLFLOW_GENAI_EVAL_PREDICT_RATE_LIMIT": "0",  # the default is meant for remote services
    "MLFLOW_GENAI_EVAL_SKIP_TRACE_VALIDATION": "true",
}
_JUDGED = "judged"  # the judge's name among the scorers
_LONGEST_ERROR = 500  # characters


@dataclass(frozen=True)
class Questionnaire:
    """What every model is asked, and what its answers are scored by."""

    questions: Sequence[Question]
    reference_answers: Sequence[str]
    judge: str  # a model for MLflow's judge of correctness, such as openai:/gpt-5 or endpoints:/name; empty for none
    experiment_id: str  # of the runs


def import_early() -> None:
    """Start a thread that imports what mlflow.genai.evaluate needs.

    The import takes seconds, and the reference is measured meanwhile.
    """

    def load() -> None:
        import databricks.sdk  # noqa: F401 - mlflow.genai imports it
        import mlflow.genai.evaluation.harness
        import mlflow.genai.scorers  # noqa: F401 - ask_through_mlflow imports it

    threading.Thread(target=load, daemon=True).start()


def ask_through_mlflow(
    questionnaire: Questionnaire, label: str, model_id: str | None, ask: Ask, progress: Callable[[], object]
) -> tuple[list[Answer], Interview]:
    """Ask a model every question, in a run of its own below the open run.

    Args:
        label: the model's name, for the run and the traces.
        ask: answers one conversation.
        progress: called after each answer.

    Returns:
        The answers in the order of the questions, and the run.

    Raises:
        StepError: the model's process ended, or the judge gave no verdict.
    """
    import mlflow
    from mlflow.entities import SpanType

    os.environ |= _SETTINGS
    respondent = _Respondent(ask, progress)
    rows = [
        {
            "inputs": {"messages": question.messages, "number": number},
            "expectations": {"expected_response": question.expected_text},
        }
        for number, question in enumerate(questionnaire.questions)
    ]
    with mlflow.start_run(run_name=label, nested=True, experiment_id=questionnaire.experiment_id) as run:
        result = mlflow.genai.evaluate(
            data=rows,
            predict_fn=mlflow.trace(respondent.answer, name=label, span_type=SpanType.CHAT_MODEL),
            scorers=_scorers(questionnaire),
            model_id=model_id,
        )
        if respondent.failure:
            raise respondent.failure
        judged = result.metrics.get(f"{_JUDGED}/mean")
        if questionnaire.judge and judged is None:
            raise StepError(f"judge {questionnaire.judge!r} gave no verdict: {_judge_error(result)}")
    answers = [respondent.answers[number] for number in range(len(rows))]
    return answers, Interview(run.info.run_id, judged)


class _Respondent:
    """A model as mlflow.genai.evaluate calls it, question by question."""

    def __init__(self, ask: Ask, progress: Callable[[], object]) -> None:
        self._ask = ask
        self._progress = progress
        self.answers: dict[int, Answer] = {}  # by the number of the question
        self.failure: StepError | None = None

    def answer(self, messages: Messages, number: int) -> str:
        """Return the text of an answer."""
        try:
            answer = self.answers[number] = self._ask(messages)
        except StepError as error:  # the model's process has ended, but mlflow would only note that an answer failed
            self.failure = self.failure or error
            raise
        self._progress()
        _record_usage(answer)
        if answer.error:
            raise RuntimeError(answer.error)
        return answer.text


def _record_usage(answer: Answer) -> None:
    """Write the token counts of an answer on its trace."""
    import mlflow
    from mlflow.tracing.constant import SpanAttributeKey

    span = mlflow.get_current_active_span()
    if span and answer.completion_tokens is not None:
        sent, written = answer.prompt_tokens or 0, answer.completion_tokens
        usage = {"input_tokens": sent, "output_tokens": written, "total_tokens": sent + written}
        span.set_attribute(SpanAttributeKey.CHAT_USAGE, usage)


def _scorers(questionnaire: Questionnaire) -> "list[Scorer]":
    """Return what scores each answer: right or wrong, equal to the reference's, and the judge if there is one."""
    from mlflow.entities import Feedback
    from mlflow.genai.scorers import Correctness, scorer

    @scorer
    def right(inputs: dict[str, Any], outputs: str | None) -> Feedback:
        question = questionnaire.questions[inputs["number"]]
        mistake = "the model failed" if outputs is None else question.mistake(outputs)
        return Feedback(value=not mistake, rationale=mistake or question.kind)

    @scorer
    def agreement(inputs: dict[str, Any], outputs: str | None) -> Feedback:
        expected = questionnaire.reference_answers[inputs["number"]].strip()
        return Feedback(value=(outputs or "").strip() == expected, rationale=f"the reference answers {expected!r}")

    judges = [Correctness(name=_JUDGED, model=questionnaire.judge)] if questionnaire.judge else []
    return [right, agreement, *judges]


def _judge_error(result: Any) -> str:
    """Return the first error of the judge, as one line.

    Args:
        result: of mlflow.genai.evaluate.
    """
    for trace in result.result_df.get("trace", []):
        for assessment in trace.info.assessments or []:
            if assessment.name == _JUDGED and assessment.error:
                return " ".join(str(assessment.error.error_message).split())[:_LONGEST_ERROR]
    return "see the traces of its evaluation run"
