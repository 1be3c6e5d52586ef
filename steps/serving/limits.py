"""The limits of the server, from the environment variable PHI_MLFLOW_SERVE_LIMITS."""

import json
import os
from dataclasses import dataclass, fields

from steps.common.errors import StepError, nearest

VARIABLE = "PHI_MLFLOW_SERVE_LIMITS"


@dataclass(frozen=True)
class Limits:
    """What the server accepts and how long it waits. Each limit is at least 1, or 0.1 for seconds."""

    body_mb: float = 10.0  # MB of a request's body
    messages: int = 1024  # messages of a chat
    tokens: int = 32768  # max_tokens that a request may ask for
    requests: int = 512  # requests in work or waiting; more get 429
    request_s: float = 600.0  # seconds for an answer; then 504
    body_s: float = 30.0  # seconds in which a request's head, and then its body, must arrive
    drain_s: float = 30.0  # seconds that answers get to finish after SIGTERM
    ping_s: float = 15.0  # seconds of silence in a stream before a ping
    follow_s: float = 10.0  # seconds between two looks at the alias, with follow=true

    @classmethod
    def from_environment(cls) -> "Limits":
        """Return the defaults with the changes of the environment variable, a JSON object.

        Raises:
            StepError: the variable holds no JSON object, an unknown name, or a number that is too small.
        """
        text = os.environ.get(VARIABLE) or "{}"
        try:
            values = json.loads(text)
        except ValueError:
            values = None
        if not isinstance(values, dict):
            raise StepError(f'{VARIABLE} holds no JSON object; expected one such as {{"requests": 64}}')
        kinds = {field.name: field.type for field in fields(cls)}
        for name, value in values.items():
            if name not in kinds:
                raise StepError(f"{VARIABLE}: the limit {name!r} is unknown; {nearest(name, kinds)}")
            whole = kinds[name] is int
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or value < _least(whole):
                raise StepError(f"{VARIABLE}: {name} is {value!r}; expected a number of at least {_least(whole)}")
        return cls(**values)


def _least(whole: bool) -> float:
    return 1 if whole else 0.1
