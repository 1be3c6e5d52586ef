"""Answers in the making: of the custom model's service, and of a model that only has `predict`."""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from mlflow.exceptions import MlflowException

from steps.chat.api.requests import parse_chat
from steps.chat.batching.generation import Completion
from steps.serving.errors import ApiError

if TYPE_CHECKING:
    from mlflow.pyfunc import PyFuncModel

    from steps.chat.batching.generation import Generation
    from steps.chat.service import Service

Body = Mapping[str, Any]
Wake = Callable[[], None]
_OURS = ("stream", "stream_options", "model")  # what the server does with an answer, and the model need not know


class Answer(Protocol):
    """An answer in the making. The methods block, except for `cancel`, which any thread may call."""

    blocks: bool  # whether `chunks` blocks, too

    @property
    def completions(self) -> list[Completion]:
        """The figures of the complete choices; none if the model has none."""

    def chunks(self, wake: Wake) -> Iterator[dict[str, Any]]:
        """Yield OpenAI's chunks. If this does not block, an empty chunk says that none is there yet.

        Args:
            wake: called when there may be more, by another thread.
        """

    def response(self) -> dict[str, Any]:
        """Return OpenAI's response."""

    def cancel(self) -> None:
        """Give the answer up."""


class ServiceAnswer:
    """An answer of the custom model: token by token, and free at the next token once it is cancelled."""

    def __init__(self, service: "Service", body: Body, stream: bool, chat: bool = True) -> None:
        """Check a request, and queue it if it streams. Raise MlflowException if it is refused.

        Args:
            chat: whether it is a chat, and not a text to be continued.
        """
        self._generations: list[Generation] = []
        self._cancelled = False
        self._wake: Wake = lambda: None
        self.blocks = service.traces  # to write a trace takes a while
        self._service, self._body, self._chat = service, body, chat
        if stream:
            start = service.stream if chat else service.stream_text_completion
            self._chunks = start(body, self._watch, None if self.blocks else lambda: self._wake())

    @property
    def completions(self) -> list[Completion]:
        """See Answer."""
        return [generation.finished for generation in self._generations if generation.finished]

    def chunks(self, wake: Wake) -> Iterator[dict[str, Any]]:
        """See Answer."""
        self._wake = wake
        return self._chunks

    def response(self) -> dict[str, Any]:
        """See Answer."""
        if self._chat:
            return self._service.chat([self._body], self._watch)[0]
        return self._service.text_completion(self._body, self._watch)

    def cancel(self) -> None:
        """See Answer."""
        self._cancelled = True
        for generation in [*self._generations]:
            generation.abort()

    def _watch(self, generation: "Generation") -> None:
        self._generations.append(generation)
        if self._cancelled:
            generation.abort()


class WholeAnswer:
    """The answer of a model that only has `predict`. It can't be cancelled."""

    blocks = True

    def __init__(self, model: "PyFuncModel", body: Body) -> None:
        """Check a request as the custom model does. Raise MlflowException if it is refused."""
        self.completions: list[Completion] = []
        self._model, self._body = model, body
        self._messages = parse_chat(body, default_max_tokens=1, supports_tools=False).messages

    def response(self) -> dict[str, Any]:
        """See Answer."""
        fields = {name: value for name, value in self._body.items() if value is not None and name not in _OURS}
        if "max_completion_tokens" in fields:
            fields["max_tokens"] = fields.pop("max_completion_tokens")
        started = time.monotonic()
        try:
            responses: Any = self._model.predict(fields | {"messages": self._messages})
        except MlflowException as error:  # MLflow's line begins with the whole request
            reason = error.message.rpartition("Error: ")[2]
            raise ApiError(min(error.get_http_status_code(), 500), reason, "invalid_value") from None
        response: dict[str, Any] = responses[0] if isinstance(responses, list) else responses
        self.completions = _completions(response, time.monotonic() - started)
        choices = [choice | {"logprobs": None} for choice in response["choices"]]
        return response | {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": "chat.completion", "choices": choices}

    def chunks(self, wake: Wake) -> Iterator[dict[str, Any]]:
        """Yield the whole answer: a chunk with the role at once, then one with the text, then one with the end."""
        frame = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "system_fingerprint": None}
        frame |= {"object": "chat.completion.chunk"}
        yield frame | {"choices": [_choice(0, {"role": "assistant", "content": ""}, None)]}
        response = self.response()
        for choice in response["choices"]:
            yield frame | {"choices": [_choice(choice["index"], {"content": choice["message"]["content"]}, None)]}
            yield frame | {"choices": [_choice(choice["index"], {}, choice["finish_reason"])]}
        if (self._body.get("stream_options") or {}).get("include_usage"):
            yield frame | {"choices": [], "usage": response.get("usage")}

    def cancel(self) -> None:
        """Do nothing: `predict` can't be stopped."""


def _completions(response: Mapping[str, Any], seconds: float) -> list[Completion]:
    """Return the figures of a whole answer. Its first token comes at its end. A model counts all choices' tokens."""
    usage, choices = response.get("usage") or {}, response["choices"]
    return [
        Completion(
            text=choice["message"].get("content") or "",
            prompt_tokens=usage.get("prompt_tokens") or 0,
            completion_tokens=(usage.get("completion_tokens") or 0) // len(choices),
            finish_reason=choice.get("finish_reason") or "stop",
            reused_tokens=0,
            queued_s=0.0,
            first_token_s=seconds,
            total_s=seconds,
        )
        for choice in choices
    ]


def _choice(index: int, delta: dict[str, Any], finish_reason: str | None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
