"""A loaded MLflow model as the server uses it: the models of the wrap steps by their service, others by `predict`.

A model of a wrap step answers token by token, and an answer can be cancelled. Another model, such as one that somebody
logged with MLflow's transformers flavor alone, answers whole: its chunks come at the end, and an answer that was
cancelled runs on in its thread.
"""

import json
import os
import re
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steps.chat.runtime.template_files import special_tokens, template_sources
from steps.common.errors import StepError
from steps.serving.answers import Answer, Body, ServiceAnswer, WholeAnswer
from steps.serving.errors import ApiError

if TYPE_CHECKING:
    from mlflow.pyfunc import PyFuncModel

    from steps.chat.service import Service

CHAT, COMPLETIONS = "llm/v1/chat", "llm/v1/completions"
CONFIG_VARIABLE = "SERVING_MODEL_CONFIG"


class ServedModel:
    """A loaded model: its name, its metadata, and how it answers. `release` must be called once for each `use`."""

    def __init__(self, uri: str, name: str, timeout: float) -> None:
        """Load a model. MLflow's variable SERVING_MODEL_CONFIG changes its model config.

        Args:
            timeout: seconds that an answer may take, unless the variable says otherwise.
            uri: of the model; not an alias, so that it names the same model for ever.
            name: the name under which clients ask for it.

        Raises:
            StepError: there is no such model, its files are damaged, or a value of its config is wrong.
        """
        import mlflow

        self.uri, self.name, self.created = uri, name, int(time.time())
        changes = {"timeout": timeout} | config_changes()
        try:
            self.pyfunc: PyFuncModel = mlflow.pyfunc.load_model(uri, model_config=changes)
        except mlflow.MlflowException as error:
            raise StepError(f"{uri} cannot be loaded: {' '.join(error.message.split())}") from error
        config = self.pyfunc.model_config or {}
        metadata = self.pyfunc.metadata.metadata or {}
        self.model_id: str = self.pyfunc.metadata.model_id or ""  # of the logged model
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
        """Check and queue a chat request. Raise MlflowException or ApiError if it is refused."""
        if self.service:
            return ServiceAnswer(self.service, body, stream)
        if self.task != CHAT:
            raise ApiError(422, "this model continues prompts and has no chat: use /v1/completions", "unsupported")
        return WholeAnswer(self.pyfunc, body)

    def complete(self, body: Body, stream: bool) -> Answer:
        """Check and queue a request of /v1/completions. Raise MlflowException or ApiError if it is refused."""
        return ServiceAnswer(self._service_for("/v1/completions"), body, stream, chat=False)

    def prompt_tokens(self, body: Body) -> list[int]:
        """Return the tokens of a chat request's prompt. Raise MlflowException or ApiError if it is refused."""
        return self._service_for("counting tokens").prompt_tokens(body)

    def tokens(self, text: str) -> list[int]:
        """Return the tokens of a text."""
        return self._service_for("/tokenize").engine.tokenizer.encode(text) if text else []

    def text(self, tokens: list[int]) -> str:
        """Return the text of tokens. Raise MlflowException if the vocabulary lacks a token."""
        engine = self._service_for("/detokenize").engine
        engine.check_tokens("tokens", tokens)
        return b"".join(map(engine.token_bytes, tokens)).decode("utf-8", "replace")

    def tokenizer_info(self) -> dict[str, Any]:
        """Return the special tokens and the chat template, under the names that vLLM has for them."""
        folder = self._service_for("/tokenizer_info").folder
        tokens = {"bos_token": None, "eos_token": None, "pad_token": None} | special_tokens(folder)
        return tokens | {"chat_template": template_sources(folder).get("default")}

    def token_text(self, token: int) -> str:
        """Return the text of one token. A part of a character becomes the replacement character."""
        return self.text([token])

    def _service_for(self, what: str) -> "Service":
        if self.service is None:
            message = f"{what}: this model cannot do that; a model of wrap_custom or wrap_transformer can"
            raise ApiError(422, message, "unsupported")
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


def config_changes() -> dict[str, Any]:
    """Return the changes of the model config in MLflow's variable SERVING_MODEL_CONFIG.

    Raises:
        StepError: it holds no JSON object.
    """
    try:
        changes = json.loads(os.environ.get(CONFIG_VARIABLE) or "{}")
    except ValueError:
        changes = None
    if not isinstance(changes, dict):
        raise StepError(f'{CONFIG_VARIABLE} holds no JSON object; expected one such as {{"threads": 2}}')
    return changes


def _service(model: "PyFuncModel") -> "Service | None":
    """Return the service of a custom model of this project; None for another model, or an older custom model."""
    try:
        python_model = model.unwrap_python_model()
    except Exception:  # MLflow raises MlflowException or AttributeError for other flavors
        return None
    service = getattr(python_model, "_service", None)
    return service if hasattr(service, "traces") else None
