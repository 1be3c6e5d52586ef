"""Generate chat answers with ONNX Runtime GenAI."""

import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when the runtime is imported

import onnxruntime_genai as og  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402

from .protocol import ChatRequest  # noqa: E402
from .threads import usable_cpus  # noqa: E402


@dataclass(frozen=True)
class Completion:
    """The text of an answer, its tokens counted with the one that ended it, and why it ended: stop or length."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str


class Engine:
    """One loaded model. Calls from any number of threads are answered one after the other."""

    def __init__(self, folder: Path | str, threads: int | None = None) -> None:
        """Load a folder with a genai_config.json.

        Args:
            threads: of ONNX Runtime; the CPUs that the process may use where None.
        """
        folder = Path(folder)
        self.threads = threads or usable_cpus()
        settings = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))
        self.context_length: int = settings["model"]["context_length"]
        config = og.Config(str(folder))
        config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": self.threads}}}}))
        self._model = og.Model(config)
        self._tokenizer = og.Tokenizer(self._model)
        self._lock = threading.Lock()  # the runtime's objects may not be used by two threads at once

    def answer(self, request: ChatRequest) -> Completion:
        """Generate one answer.

        Raises:
            MlflowException: the template refuses the messages, or the prompt leaves no room for an answer.
        """
        with self._lock:
            return self._answer(request)

    def _answer(self, request: ChatRequest) -> Completion:
        try:
            prompt = self._tokenizer.apply_chat_template(json.dumps(request.messages), add_generation_prompt=True)
        except Exception as error:  # the binding raises bare exceptions
            raise MlflowException.invalid_parameter_value(
                f"messages: the chat template refuses them: {error}"
            ) from None
        ids = self._tokenizer.encode(prompt)
        if len(ids) >= self.context_length:
            raise MlflowException.invalid_parameter_value(
                f"messages: the prompt has {len(ids)} tokens; at most {self.context_length - 1} fit, "
                "with one left for the answer: shorten it"
            )
        limit = min(request.max_tokens, self.context_length - len(ids))
        generator = og.Generator(self._model, self._search(request, len(ids) + limit))
        generator.append_tokens(ids)
        decoder = self._tokenizer.create_stream()
        text, count = "", 0
        while not generator.is_done() and count < limit:
            generator.generate_next_token()
            token = int(generator.get_next_tokens()[0])
            count += 1
            text += decoder.decode(token)
            cut = min((place for stop in request.stop if (place := text.find(stop)) >= 0), default=None)
            if cut is not None:
                return Completion(text[:cut].lstrip(), len(ids), count, "stop")
        # The flavor calls an answer that has just the tokens it may have cut off, its end token included.
        return Completion(text.lstrip(), len(ids), count, "length" if count == limit else "stop")

    def _search(self, request: ChatRequest, max_length: int) -> og.GeneratorParams:
        """max_length counts prompt and answer and sizes the KV buffers, so it is never more than is needed."""
        options: dict[str, float | int | bool] = {"max_length": max_length, "do_sample": request.temperature > 0}
        if request.temperature > 0:
            options.update(temperature=request.temperature, top_p=request.top_p)
            if request.top_k:
                options["top_k"] = request.top_k
        params = og.GeneratorParams(self._model)
        params.set_search_options(**options)
        return params
