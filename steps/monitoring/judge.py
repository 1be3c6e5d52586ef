"""Ask a judge, a language model, whether answers address their questions."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from steps.common.errors import StepError
from steps.monitoring.served import Observation

MOST = 100  # answers that the judge reads, of the requests and of the evaluation each
_AT_ONCE = 4
_LONGEST_ERROR = 500  # characters


def with_verdicts(
    judge: str, observations: Sequence[Observation], progress: Callable[[], object]
) -> tuple[Observation, ...]:
    """Return the observations with the judge's verdicts, the value `rejected`. It reads at most MOST, evenly spread.

    Args:
        judge: a model for MLflow's judges, such as openai:/gpt-5.
        progress: called after each verdict.

    Raises:
        StepError: the judge gives no verdict on the first answer.
    """
    from mlflow.genai.scorers import RelevanceToQuery

    scorer: Any = RelevanceToQuery(name="rejected", model=judge)
    answered = [n for n, observation in enumerate(observations) if observation.served.texts]
    count = min(MOST, len(answered))
    chosen = [answered[index * len(answered) // count] for index in range(count)]

    def ask(number: int) -> float | str:
        served = observations[number].served
        try:
            feedback = scorer(inputs={"question": served.question}, outputs=served.texts[0])
        except Exception as error:  # MLflow and its clients raise many kinds
            return " ".join(str(error).split())
        finally:
            progress()
        if feedback.error:
            return " ".join(str(feedback.error.error_message).split())
        return float(str(feedback.value).lower() not in ("yes", "true"))

    if not chosen:
        return tuple(observations)
    first = ask(chosen[0])  # a judge that is not there is tried again for long: once is enough
    if isinstance(first, str):
        raise StepError(f"judge {judge!r} gave no verdict: {first[:_LONGEST_ERROR]}")
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        verdicts = dict(zip(chosen, [first, *pool.map(ask, chosen[1:])], strict=True))
    return tuple(
        replace(observation, values=observation.values | {"rejected": verdict})
        if isinstance(verdict := verdicts.get(number), float)
        else observation
        for number, observation in enumerate(observations)
    )
