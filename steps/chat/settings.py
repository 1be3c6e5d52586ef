"""The keys of the model config that the engine reads."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from mlflow.environment_variables import MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT

from .errors import ModelError

_MINIMUM = {
    "threads": 0,
    "parallel": 1,
    "queue": 1,
    "timeout": 0,
    "kv_cache_mb": 1,
    "prefill_chunk": 1,
    "answer_share": 0,
}
_REASONING = ("auto", "on", "off")
_FRACTIONS = ("timeout", "answer_share")  # the other numbers are whole
_IN_SCORING_SERVER = (
    "_MLFLOW_IS_IN_SERVING_ENVIRONMENT"  # MLflow's scoring server sets it after it has loaded the model
)
_MARGIN = 2.0  # seconds that the scoring server has left to send the refusal


@dataclass(frozen=True)
class Settings:
    """The engine's settings.

    A caller sets them when the model is loaded, `mlflow.pyfunc.load_model(uri, model_config={"threads": 4})`, or when
    it is served, by MLflow's environment variable SERVING_MODEL_CONFIG='{"threads": 4}'.
    """

    threads: int = 0  # threads of ONNX Runtime; 0: the CPUs that the process may use
    provider: str = "cpu"  # execution provider: cpu or cuda
    parallel: int = 16  # answers that are made at the same time; other requests wait
    queue: int = 256  # requests that may wait; more requests are refused
    timeout: float | None = None  # seconds that a caller waits for an answer; 0: no limit; None: see effective_timeout
    kv_cache_mb: int = 4096  # MiB for the KV cache, with the finished sequences that it keeps for reuse
    prefill_chunk: int = 64  # tokens of a prompt that are read between two decode steps
    longrope_switch: int = 0  # length in tokens past which LongRoPE's long factors apply; 0: the model has no LongRoPE
    special_tokens_in_text: str = "plain"  # text of special tokens in messages: "plain" text, or "special" tokens
    ignore_eos: bool = False  # answers go on after an end token, up to max_tokens: for measuring speed
    reasoning: str = "auto"  # whether the model writes <think> ... </think>: on, off, or auto by the checkpoint's files
    answer_share: float = 0.25  # of max_tokens, which the engine keeps for the answer after a thought; 0: none

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Settings":
        """Return the settings of a model config. Its other keys are ignored.

        Raises:
            ModelError: a value is invalid.
        """
        names = [field.name for field in fields(cls)]
        settings = cls(**{name: config[name] for name in names if config.get(name) is not None})
        if not isinstance(settings.ignore_eos, bool):
            raise _invalid("ignore_eos", settings.ignore_eos, "true or false")
        if settings.special_tokens_in_text not in ("plain", "special"):
            raise _invalid("special_tokens_in_text", settings.special_tokens_in_text, "plain or special")
        if isinstance(settings.reasoning, bool):  # YAML reads a plain on and off so
            settings = replace(settings, reasoning="on" if settings.reasoning else "off")
        if settings.reasoning not in _REASONING:
            raise _invalid("reasoning", settings.reasoning, f"one of {', '.join(_REASONING)}")
        for name, minimum in _MINIMUM.items():
            value, types = getattr(settings, name), (int, float) if name in _FRACTIONS else (int,)
            if name == "timeout" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, types) or value < minimum:
                kind = "number" if name in _FRACTIONS else "whole number"
                raise _invalid(name, value, f"a {kind} of at least {minimum}")
        if settings.answer_share >= 1:
            raise _invalid("answer_share", settings.answer_share, "a number of at least 0 and less than 1")
        return settings

    def effective_timeout(self) -> float:
        """Return the seconds that a caller waits for an answer; 0 for no limit.

        MLflow's scoring server gives up a request after MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT seconds, and its thread
        would go on. So without a `timeout` of its own a served model ends its work a little earlier.
        """
        if self.timeout is not None:
            return self.timeout
        if not (MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT.is_set() or os.environ.get(_IN_SCORING_SERVER) == "true"):
            return 0.0
        limit = float(MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT.get())
        return max(limit - _MARGIN, limit / 2)


def _invalid(name: str, value: Any, expected: str) -> ModelError:
    return ModelError(f"model config: {name} is {value!r}; expected {expected}")
