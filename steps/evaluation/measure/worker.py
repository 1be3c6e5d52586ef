"""One model in a process of its own, which answers and times what it is told to.

Run as a file, not as a module, from a folder that is not the project's, so that the model meets nothing of this
project but what was logged with it: `python worker.py FD`. A line of JSON on stdin is a call, {"do": name, ...}; what
it came to is a line of JSON on the descriptor FD: {"progress": 1} any number of times, then {"result": ...} or
{"error": one line}. The calls are the methods of Worker.

Times are wall time of whole requests, as a client would see them, in seconds.
"""

import gc
import json
import os
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
_EOS_OFF = {"ignore_eos": True, "eos_token_id": -1}  # where a model has either of them in its config

Answer = dict[str, Any]  # text, prompt_tokens, completion_tokens


class LoggedModel:
    """An MLflow model with the signature `llm/v1/chat`."""

    def __init__(self, folder: str, endless: bool) -> None:
        import mlflow

        config = mlflow.models.Model.load(folder).flavors["python_function"].get("config") or {}
        changed = {name: value for name, value in _EOS_OFF.items() if endless and name in config}
        self.endless = bool(changed)
        self._model = mlflow.pyfunc.load_model(folder, model_config=config | changed if changed else None)

    def answer(self, messages: list[dict[str, str]], max_tokens: int) -> Answer:
        """One request; a model may answer with the object itself or with a list of one."""
        result: Any = self._model.predict({"messages": messages, "max_tokens": max_tokens})
        result = result[0] if isinstance(result, list) else result
        text, usage = result["choices"][0]["message"]["content"], result.get("usage") or {}
        counts = {name: usage.get(name) for name in ("prompt_tokens", "completion_tokens")}
        return {"text": text or "", **counts}


class Checkpoint:
    """A checkpoint in PyTorch, decoding greedily."""

    def __init__(self, folder: str) -> None:
        os.environ["HF_HUB_OFFLINE"] = "1"
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
        self.vocabulary = self._model.config.vocab_size
        self.context_length = self._model.config.max_position_embeddings

    def answer(self, messages: list[dict[str, str]], max_tokens: int) -> Answer:
        """One greedy answer."""
        import torch

        ids = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
        with torch.no_grad():
            output = self._model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_tokens, do_sample=False
            )
        new = output[0, ids.shape[1] :]
        text = self.tokenizer.decode(new, skip_special_tokens=True).lstrip()
        return {"text": text, "prompt_tokens": ids.shape[1], "completion_tokens": len(new)}


class Worker:
    """The calls."""

    def __init__(self, write: Any) -> None:
        self._write = write
        self._model: Any = None
        self._folder = ""

    def fetch(self, uri: str) -> int:
        """Find a logged model, download it where the store is elsewhere; its size, bytes."""
        import mlflow

        self._folder = mlflow.artifacts.download_artifacts(artifact_uri=uri)
        return sum(file.stat().st_size for file in Path(self._folder).rglob("*") if file.is_file())

    def load(self, endless: bool) -> dict[str, Any]:
        """Load it. `endless`: so that answers go on past their end, where the model can."""
        self.unload()
        start = time.perf_counter()
        self._model = LoggedModel(self._folder, endless)
        return {"load_s": time.perf_counter() - start, "endless": self._model.endless}

    def load_checkpoint(self, folder: str) -> None:
        """Load a checkpoint to answer with PyTorch."""
        self._folder = folder
        self._model = Checkpoint(folder)

    def unload(self) -> None:
        """Let go of the loaded model."""
        self._model = None
        gc.collect()

    def answer(self, messages: list[dict[str, str]], max_tokens: int) -> Answer:
        """One answer and its `seconds`; where the model fails at it, its `error` instead of a text."""
        start = time.perf_counter()
        try:
            found = self._model.answer(messages, max_tokens)
        except Exception as error:
            found = {"text": "", "error": one_line(error)}
        return found | {"seconds": time.perf_counter() - start}

    def time(
        self, fresh: list[dict[str, str]], known: list[dict[str, str]], tokens: int
    ) -> dict[str, float | int | None]:
        """Time a prompt that begins as none before it for one token; then a known one for one, and for `tokens`."""
        first = self._model.answer
        ttft_s, answer = _timed(first, fresh, 1)
        known_s, _ = _timed(first, known, 1)
        whole_s, whole = _timed(first, known, tokens)
        return {
            "prompt_tokens": answer["prompt_tokens"],
            "ttft_s": ttft_s,
            "known_s": known_s,
            "whole_s": whole_s,
            "tokens": whole["completion_tokens"],
        }

    def throughput(self, prompts: list[list[dict[str, str]]], tokens: int, concurrency: int) -> dict[str, Any]:
        """Answer all prompts, so many at a time, as that many clients would."""
        waiting, counts, errors = list(prompts), [], []

        def client() -> None:
            while True:
                try:
                    messages = waiting.pop()
                except IndexError:
                    return
                try:
                    counts.append(self._model.answer(messages, tokens)["completion_tokens"] or 0)
                except Exception as error:
                    errors.append(one_line(error))

        threads = [threading.Thread(target=client) for _ in range(concurrency)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {
            "concurrency": concurrency,
            "requests": len(prompts),
            "seconds": time.perf_counter() - start,
            "output_tokens": sum(counts),
            "failed": len(errors),
            "error": errors[0] if errors else None,
        }

    def peak_memory(self) -> int:
        """The process's largest resident set so far, bytes: VmHWM, since ru_maxrss begins at the parent's on Linux."""
        try:
            status = Path("/proc/self/status").read_text()
            return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
        except (OSError, StopIteration):  # macOS, where getrusage counts bytes
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def prepare(self, text: dict[str, Any], tokens: int, lengths: list[int], room: int, each: int) -> dict[str, Any]:
        """By the checkpoint's tokenizer: the windows of the fidelity, and prompts of given lengths.

        Args:
            text: texts.Text as a dict.
            tokens: to be predicted, at most.
            lengths: of prompts, in tokens; those that leave no room for an answer of `room` tokens are left out.
            each: prompts of each length, no two of which begin alike.
        """
        sys.path.append(str(ROOT))
        from steps.evaluation.inputs.prompts import make_prompts, make_windows

        model, tokenizer = self._model, self._model.tokenizer
        fitting = [length for length in lengths if length + room <= model.context_length] or lengths[:1]
        return {
            "vocabulary": model.vocabulary,
            "windows": make_windows(tokenizer, text, tokens),
            "prompts": make_prompts(tokenizer, text, fitting, each),
        }

    def write_logits(self, windows: list[dict[str, Any]], out: str) -> int:
        """The reference's logits of all windows to a file, float32 [tokens, vocabulary]; returns the vocabulary."""
        self.unload()
        sys.path.append(str(ROOT))
        from steps.evaluation.measure.logits import TorchLogits

        model = TorchLogits(Path(self._folder), exact=True)
        with open(out, "wb") as file:
            for window in windows:
                for block in model.blocks(window["tokens"], window["first"]):
                    file.write(block.tobytes())
                self._write({"progress": 1})
        return model.vocabulary

    def fidelity(self, windows: list[dict[str, Any]], reference: str, vocabulary: int, out: str) -> dict[str, Any]:
        """Compare with the reference's logits; the figures of each token go to `out` (.npy).

        Returns:
            `missing`, why there are none, or None; `read_per_token`, bytes, or None.
        """
        self.unload()
        sys.path.append(str(ROOT))
        import numpy as np

        from steps.evaluation.measure.fidelity import compare
        from steps.evaluation.measure.logits import open_logits

        model = open_logits(Path(self._folder))
        if model is None:
            return {"missing": "not a model of a kind that evaluate can look into", "read_per_token": None}
        if model.vocabulary != vocabulary:
            missing = f"its vocabulary has {model.vocabulary} tokens, and the reference's {vocabulary}"
            return {"missing": missing, "read_per_token": model.read_per_token}
        found, done = [], 0
        for window in windows:
            targets = window["tokens"][window["first"] + 1 :]
            shape = (len(targets), vocabulary)
            base = np.memmap(reference, np.float32, "r", offset=4 * done * vocabulary, shape=shape)
            found.append(compare(base, model.blocks(window["tokens"], window["first"]), targets))
            done += len(targets)
            self._write({"progress": 1})
        np.save(out, np.concatenate(found))
        return {"missing": None, "read_per_token": model.read_per_token}


def _timed(answer: Any, messages: list[dict[str, str]], limit: int) -> tuple[float, Answer]:
    start = time.perf_counter()
    found = answer(messages, limit)
    return time.perf_counter() - start, found


def one_line(error: BaseException) -> str:
    """An error as one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def main() -> None:
    """Serve the calls until stdin ends."""
    with os.fdopen(int(sys.argv[1]), "w", encoding="utf-8", buffering=1) as out:

        def write(content: dict[str, Any]) -> None:
            out.write(json.dumps(content) + "\n")

        worker = Worker(write)
        for line in sys.stdin:
            call = json.loads(line)
            try:
                write({"result": getattr(worker, call.pop("do"))(**call)})
            except Exception as error:
                import traceback

                traceback.print_exc()
                write({"error": one_line(error)})


if __name__ == "__main__":
    main()
