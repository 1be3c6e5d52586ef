"""`llm/v1/completions`: continue many prompts at once, each as it is."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException

from .api.requests import Sampling, parse_prompt
from .batching.engine import Engine
from .batching.generation import Completion, Generation

# The counts of a row with an error are 0 and not null: neither pandas nor Spark has a null in a column of integers.
_NO_RESULT = {"text": None, "finish_reason": None, "prompt_tokens": 0, "completion_tokens": 0, "error": None}


def complete_rows(
    engine: Engine, rows: Sequence[Mapping[str, Any]], sampling: Sampling
) -> list[Completion | MlflowException]:
    """Return the completion of each row's prompt, or the error of a row that cannot be continued, in order.

    The longest prompts start first: a long prompt that started last would be alone at the end. At most twice `parallel`
    prompts are submitted at a time.
    """
    results: dict[int, Completion | MlflowException] = {}
    prompts: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        try:
            prompts[index] = engine.tokenizer.encode(parse_prompt(row))
            engine.check_length(prompts[index], sampling.max_tokens, "prompt")
        except MlflowException as error:
            prompts.pop(index, None)
            results[index] = error
    running: deque[tuple[int, Generation]] = deque()

    def collect() -> None:
        index, generation = running.popleft()
        try:
            results[index] = generation.wait()
        except MlflowException as error:
            results[index] = error

    try:
        for index in sorted(prompts, key=lambda index: -len(prompts[index])):
            if len(running) >= 2 * engine.settings.parallel:
                collect()
            try:
                generation = engine.submit(prompts[index], sampling, chat=False, wait=True, stream=False)
                running.append((index, generation))
            except MlflowException as error:
                results[index] = error
        while running:
            collect()
    finally:
        for _, generation in running:
            generation.cancel()
    return [results[index] for index in range(len(rows))]


def result_row(result: Completion | MlflowException) -> dict[str, Any]:
    """Return a row of the result DataFrame."""
    if isinstance(result, MlflowException):
        return _NO_RESULT | {"error": result.message}
    return {
        "text": result.text,
        "finish_reason": result.finish_reason,
        "prompt_tokens": result.prompt_tokens,
        "completion_tokens": result.completion_tokens,
        "error": None,
    }


def result_frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return result rows as a DataFrame: null stays null in the texts, and the counts are integers."""
    frame = pd.DataFrame([*rows], columns=[*_NO_RESULT], dtype=object)
    return frame.astype(dict.fromkeys(("prompt_tokens", "completion_tokens"), "int64"))
