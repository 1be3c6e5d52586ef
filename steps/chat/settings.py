"""What the model config says of the engine."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from mlflow.exceptions import MlflowException


@dataclass(frozen=True)
class Settings:
    """Each can be given when the model is loaded, `mlflow.pyfunc.load_model(uri, model_config={"threads": 4})`, and
    when it is served, by MLflow's environment variable SERVING_MODEL_CONFIG='{"threads": 4}'.
    """

    threads: int = 0  # of ONNX Runtime; 0: the CPUs that the process may use
    provider: str = "cpu"  # execution provider: cpu or cuda
    parallel: int = 16  # answers that are made at the same time; the others wait
    queue: int = 256  # requests that may wait; more are refused
    timeout: float = 0.0  # seconds that a caller waits for an answer; 0: as long as it takes
    kv_cache_mb: int = 4096  # MiB for the keys and values of all texts, those kept for reuse included
    prefill_chunk: int = 64  # tokens of a prompt that are read between two steps of the others
    longrope_switch: int = 0  # the length past which LongRoPE's long factors hold; 0: none
    ignore_eos: bool = False  # whether answers go on past their end, to max_tokens: for measuring speed

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Settings":
        """From the model config, whose other keys are not the engine's.

        Raises:
            MlflowException: a value that cannot be.
        """
        given = {field.name: config[field.name] for field in fields(cls) if config.get(field.name) is not None}
        settings = cls(**given)
        if not isinstance(settings.ignore_eos, bool):
            raise MlflowException.invalid_parameter_value(
                f"model config: ignore_eos is {settings.ignore_eos!r}; expected true or false"
            )
        least = {"threads": 0, "parallel": 1, "queue": 1, "timeout": 0, "kv_cache_mb": 1, "prefill_chunk": 1}
        for name, minimum in least.items():
            value = getattr(settings, name)
            whole = isinstance(value, int) or name == "timeout"
            if isinstance(value, bool) or not isinstance(value, int | float) or not whole or value < minimum:
                raise MlflowException.invalid_parameter_value(
                    f"model config: {name} is {value!r}; expected a {'' if name == 'timeout' else 'whole '}number of "
                    f"at least {minimum}"
                )
        return settings
