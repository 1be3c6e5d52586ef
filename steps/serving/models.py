"""A loaded MLflow model as the server uses it: the custom model by its service, any other model by `predict`.

The custom model answers token by token, and an answer can be cancelled. Another model, such as the transformers flavor,
answers whole: its chunks come at the end, and an answer that was cancelled runs on in its thread.
"""

import re
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from steps.serving.errors import ApiError

if TYPE_CHECKING:
    from mlflow.pyfunc import PyFuncModel

    from steps.chat.batching.generation import Completion
    from steps.chat.service import Service

CHAT, COMPLETIONS = "llm/v1/chat", "llm/v1/completions"

Body = Mapping[str, Any]


class Answer(Protocol):
    """An answer in the making. The methods block; `cancel` may be called from any thread."""

    completions: "list[Completion]"  # the figures of the complete choices; empty if the model has none

    def chunks(self) -> Iterator[dict[str, Any]]:
        """Yield OpenAI's chunks."""

    def response(self) -> dict[str, Any]:
        """Return OpenAI's response."""

    def cancel(self) -> None:
        """Give the answer up."""


class WholeAnswer:
    """The answer of a model that only has `predict`."""

    def __init__(self, model: "PyFuncModel", name: str, body: Body) -> None:
        self.completions: list[Completion] = []
        self._model, self._name, self._body = model, name, body

    def response(self) -> dict[str, Any]:
        """See Answer."""
        fields = {name: value for name, value in self._body.items() if value is not None}
        for name in ("stream", "stream_options", "model"):
            fields.pop(name, None)
        responses: Any = self._model.predict(fields)
        response = responses[0] if isinstance(responses, list) else responses
        return dict(response) | {"model": self._name, "object": _object(response)}

    def chunks(self) -> Iterator[dict[str, Any]]:
        """Yield the whole answer as a first chunk with the role, one with the text, one with the end."""
        frame = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": self._name}
        frame |= {"object": "chat.completion.chunk", "system_fingerprint": None}
        yield frame | {"choices": [_delta(0, {"role": "assistant", "content": ""}, None)]}
        response = self.response()
        for choice in response["choices"]:
            yield frame | {"choices": [_delta(choice["index"], {"content": choice["message"]["content"]}, None)]}
            yield frame | {"choices": [_delta(choice["index"], {}, choice["finish_reason"])]}
        if (self._body.get("stream_options") or {}).get("include_usage"):
            yield frame | {"choices": [], "usage": response.get("usage")}

    def cancel(self) -> None:
        """Do nothing: `predict` can't be stopped."""


class ServedModel:
    """A loaded model: its name, its metadata, and how it answers. `release` must be called once for each `use`."""

    def __init__(self, uri: str, name: str) -> None:
        """Load a model.

        Args:
            uri: of the model; not an alias, so that it names the same model for ever.
            name: the name under which clients ask for it.
        """
        import mlflow

        self.uri, self.name, self.created = uri, name, int(time.time())
        self.pyfunc: PyFuncModel = mlflow.pyfunc.load_model(uri)
        config = self.pyfunc.model_config or {}
        metadata = self.pyfunc.metadata.metadata or {}
        self.task = config.get("task") or metadata.get("task") or CHAT
        self.names = {name, uri, config.get("model") or name}
        self.service: Service | None = _service(self.pyfunc)
        self._in_use, self._retired = 0, False
        self._lock = threading.Lock()

    @property
    def context_length(self) -> int | None:
        """Tokens of a prompt and its answer; None if the model does not tell."""
        return self.service.engine.context_length if self.service else None

    def chat(self, body: Body, stream: bool) -> Answer:
        """Check and queue a chat request. Raise MlflowException if it is refused."""
        if self.service:
            return self.service.start(body, stream)
        if self.task != CHAT:
            raise ApiError(422, "this model continues prompts and has no chat: use /v1/completions", "unsupported")
        return WholeAnswer(self.pyfunc, self.name, body)

    def needs_service(self, what: str) -> "Service":
        """Return the custom model's service. Raise ApiError if the model has none."""
        if self.service is None:
            raise ApiError(422, f"{what}: this model's flavor cannot do that; a model of wrap_custom can", "unsupported")
        return self.service

    def use(self) -> None:
        """Keep the model loaded until `release` is called."""
        with self._lock:
            self._in_use += 1

    def release(self) -> None:
        """End a use. A retired model that nobody uses is closed."""
        with self._lock:
            self._in_use -= 1
            close = self._retired and not self._in_use
        if close:
            self._close()

    def retire(self) -> None:
        """Close the model as soon as nobody uses it."""
        with self._lock:
            self._retired = True
            close = not self._in_use
        if close:
            self._close()

    def _close(self) -> None:
        if self.service:
            self.service.engine.close()


def served_name(uri: str) -> str:
    """Return the name that clients see for a model's URI: the registered name, or the end of the address."""
    registered = re.fullmatch(r"models:/+([^/@]+)(?:[/@].*)?", uri)
    return registered[1] if registered else Path(uri.rstrip("/")).name


def _service(model: "PyFuncModel") -> "Service | None":
    """Return the service of a custom model of this project; None for another model, or an older custom model."""
    try:
        python_model = model.unwrap_python_model()
    except Exception:  # MLflow raises MlflowException or AttributeError for other flavors
        return None
    service = getattr(python_model, "_service", None)
    return service if hasattr(service, "start") else None


def _delta(index: int, delta: dict[str, Any], finish_reason: str | None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def _object(response: Mapping[str, Any]) -> str:
    return response.get("object") or "chat.completion"
