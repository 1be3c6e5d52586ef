"""The process of one model: it loads the model, answers with it and times it, as it is told.

It runs as a file, `python worker.py FD`, outside the project's folder. So a logged model loads without any code of this
project but the code that it brings: nothing of this project may be imported before that.

A line of JSON on stdin is a call: {"do": name, ...arguments}. Its results are lines of JSON on the file descriptor FD:
{"progress": 1} any number of times, then {"result": ...}, or {"error": one line}. The calls are the methods of Worker;
model_process.py has their other end.

All times are wall times of whole requests in seconds, as a client sees them.
"""

import gc
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

_PROJECT = Path(__file__).parents[3]
# Settings in a model's config that let it go on past its end token (EOS). A model has one of the two, or neither.
_IGNORE_EOS = {"ignore_eos": True, "eos_token_id": -1}
_THOUGHT_TAGS = "<think>", "</think>"  # as in steps.chat.runtime.reasoning

Messages = list[dict[str, str]]
Result = dict[str, Any]  # what JSON can hold


class LoggedModel:
    """An MLflow model of the task `llm/v1/chat`: one of ours, or one of the transformers flavor alone.

    `ignores_eos` tells whether its answers go on past their end token. Not every model can.
    `shows_thoughts` tells whether a text of this model begins where its prompt ends, thought and all.
    """

    def __init__(self, folder: str, ignore_eos: bool) -> None:
        import mlflow

        flavors = mlflow.models.Model.load(folder).flavors
        self.shows_thoughts = flavors["python_function"]["loader_module"] == "mlflow.transformers"
        config = flavors["python_function"].get("config") or {}
        changes = {name: value for name, value in _IGNORE_EOS.items() if ignore_eos and name in config}
        self.ignores_eos = bool(changes)
        self._model = mlflow.pyfunc.load_model(folder, model_config=config | changes if changes else None)

    def answer(self, messages: Messages, max_tokens: int) -> Result:
        """Return `text`, `shows_thoughts`, `prompt_tokens` and `completion_tokens`. A count may be None."""
        response: Any = self._model.predict({"messages": messages, "max_tokens": max_tokens})
        response = response[0] if isinstance(response, list) else response  # the two wrappers differ here
        text, usage = response["choices"][0]["message"]["content"], response.get("usage") or {}
        counts = {name: usage.get(name) for name in ("prompt_tokens", "completion_tokens")}
        return {"text": text or "", "shows_thoughts": self.shows_thoughts} | counts


class Checkpoint:
    """A checkpoint in PyTorch, in the data type of its weights. It decodes greedily."""

    def __init__(self, folder: str) -> None:
        os.environ["HF_HUB_OFFLINE"] = "1"
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
        self.vocabulary = self._model.config.vocab_size
        self.context_length = self._model.config.max_position_embeddings

    def answer(self, messages: Messages, max_tokens: int) -> Result:
        """Return what LoggedModel.answer returns."""
        import torch

        ids = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
        with torch.no_grad():
            output = self._model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_tokens, do_sample=False
            )
        new = output[0, ids.shape[1] :]
        text = self._decode(new.tolist()).lstrip()
        counts = {"prompt_tokens": ids.shape[1], "completion_tokens": len(new)}
        return {"text": text, "shows_thoughts": True} | counts

    def _decode(self, tokens: list[int]) -> str:
        """Return the text of an answer. The tags of a thought stay in it, even if they are special tokens."""
        added = self.tokenizer.added_tokens_decoder.items()
        tags = {number: token.content for number, token in added if token.special and token.content in _THOUGHT_TAGS}
        text, start = "", 0
        for position, token in enumerate(tokens):
            if token in tags:
                text += self.tokenizer.decode(tokens[start:position], skip_special_tokens=True) + tags[token]
                start = position + 1
        return text + self.tokenizer.decode(tokens[start:], skip_special_tokens=True)

    def generation_prompt(self) -> str:
        """Return the prompt of a short question, as text."""
        messages = [{"role": "user", "content": "?"}]
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


class Worker:
    """The calls. `write` sends one line to the other end."""

    def __init__(self, write: Callable[[Result], None]) -> None:
        self._write = write
        self._model: Any = None
        self._folder = ""

    def fetch(self, uri: str) -> int:
        """Find a logged model, or download it if its store is elsewhere. Return the size of its files in bytes."""
        import mlflow

        self._folder = mlflow.artifacts.download_artifacts(artifact_uri=uri)
        return sum(file.stat().st_size for file in Path(self._folder).rglob("*") if file.is_file())

    def load(self, ignore_eos: bool) -> Result:
        """Load the fetched model. With `ignore_eos`, its answers go on past their end token, if it can."""
        self.unload()
        start = time.perf_counter()
        self._model = LoggedModel(self._folder, ignore_eos)
        return {"load_s": time.perf_counter() - start, "ignores_eos": self._model.ignores_eos}

    def load_checkpoint(self, folder: str) -> None:
        """Load a checkpoint, to answer with PyTorch."""
        self._folder = folder
        self._model = Checkpoint(folder)

    def unload(self) -> None:
        """Free the memory of the loaded model."""
        self._model = None
        gc.collect()

    def answer(self, messages: Messages, max_tokens: int) -> Result:
        """Return one answer and its `seconds`. If the model fails, `error` says why and the text is empty."""
        start = time.perf_counter()
        try:
            answer = self._model.answer(messages, max_tokens) | {"error": None}
        except Exception as error:
            answer = {"text": "", "prompt_tokens": None, "completion_tokens": None, "error": one_line(error)}
            answer["shows_thoughts"] = False
        return answer | {"seconds": time.perf_counter() - start}

    def time(self, repetition: int, unseen: Messages, cached: Messages, tokens: int) -> Result:
        """Time three requests: an unseen prompt for 1 token, a cached prompt for 1 token, the same for `tokens` tokens.

        The difference of the last two is the time of the tokens after the first.
        """
        first_token_s, first = self._timed(unseen, 1)
        cached_first_token_s, _ = self._timed(cached, 1)
        cached_answer_s, answer = self._timed(cached, tokens)
        return {
            "repetition": repetition,
            "prompt_tokens": first["prompt_tokens"],
            "first_token_s": first_token_s,
            "cached_first_token_s": cached_first_token_s,
            "cached_answer_s": cached_answer_s,
            "new_tokens": answer["completion_tokens"],
        }

    def _timed(self, messages: Messages, max_tokens: int) -> tuple[float, Result]:
        start = time.perf_counter()
        answer = self._model.answer(messages, max_tokens)
        return time.perf_counter() - start, answer

    def throughput(self, prompts: list[Messages], tokens: int, clients: int) -> Result:
        """Answer all prompts for a number of clients. A client waits for an answer before it asks again."""

        def ask(messages: Messages) -> tuple[int, str | None]:
            try:
                return self._model.answer(messages, tokens)["completion_tokens"] or 0, None
            except Exception as error:
                return 0, one_line(error)

        start = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            results = list(pool.map(ask, prompts))
        seconds = time.perf_counter() - start
        errors = [error for _, error in results if error]
        return {
            "clients": clients,
            "requests": len(prompts),
            "seconds": seconds,
            "output_tokens": sum(count for count, _ in results),
            "failed": len(errors),
            "error": errors[0] if errors else None,
        }

    def peak_memory(self) -> int:
        """Return the largest resident memory that this process had so far, in bytes."""
        # As steps.common.process.peak_rss. It can't be imported yet: the model is loaded once more after this.
        try:
            status = Path("/proc/self/status").read_text()
            return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
        except (OSError, StopIteration):  # macOS, where getrusage counts bytes
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def prepare(self, text: Result, tokens: int, lengths: list[int], room: int, prompts: int) -> Result:
        """Make the windows of the fidelity and the prompts to time, with the tokenizer of the loaded checkpoint.

        Args:
            text: a scored_text.TextContent as JSON.
            tokens: to be predicted, at most.
            lengths: of prompts in tokens. A prompt leaves room for an answer of `room` tokens.
            prompts: how many of each length.
        """
        _allow_imports_of_the_project()
        from dataclasses import asdict

        from pydantic import TypeAdapter

        from steps.chat.runtime.reasoning import opens_thought
        from steps.evaluation.inputs.prompts import make_prompts
        from steps.evaluation.inputs.scored_text import TextContent
        from steps.evaluation.inputs.windows import make_windows

        model, content = self._model, TypeAdapter(TextContent).validate_python(text)
        return {
            "vocabulary": model.vocabulary,
            "opens_thought": opens_thought(model.generation_prompt()),
            "windows": [asdict(window) for window in make_windows(model.tokenizer, content, tokens)],
            "prompts": make_prompts(model.tokenizer, content, lengths, prompts, model.context_length - room),
        }

    def write_logits(self, windows: list[Result], out: str) -> int:
        """See reference_logits.write_logits, for the loaded checkpoint."""
        self.unload()
        _allow_imports_of_the_project()
        from steps.evaluation.measure import reference_logits

        return reference_logits.write_logits(Path(self._folder), windows, Path(out), self._progress)

    def score(self, windows: list[Result], reference: str, vocabulary: int, out: str) -> Result:
        """See reference_logits.score_model, for the fetched model."""
        self.unload()
        _allow_imports_of_the_project()
        from steps.evaluation.measure import reference_logits

        logits = Path(reference), vocabulary
        return reference_logits.score_model(Path(self._folder), windows, logits, Path(out), self._progress)

    def _progress(self) -> None:
        self._write({"progress": 1})


def _allow_imports_of_the_project() -> None:
    """Let this process import `steps`. No logged model may be loaded after it."""
    if str(_PROJECT) not in sys.path:
        sys.path.append(str(_PROJECT))


def one_line(error: BaseException) -> str:
    """Return an error as one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def main() -> None:
    """Answer calls until stdin ends."""
    with os.fdopen(int(sys.argv[1]), "w", encoding="utf-8", buffering=1) as out:
        worker = Worker(lambda content: print(json.dumps(content), file=out))
        for line in sys.stdin:
            call = json.loads(line)
            try:
                result = {"result": getattr(worker, call.pop("do"))(**call)}
            except Exception as error:
                traceback.print_exc()
                result = {"error": one_line(error)}
            print(json.dumps(result), file=out)


if __name__ == "__main__":
    main()
