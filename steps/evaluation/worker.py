"""Load one model in a process of its own, answer an evaluation set, and measure it.

Run as a file, not as a module, from a folder that is not the project's, so that the model meets nothing of this
project but what was logged with it: `python worker.py JOB RESULT PROGRESS_FD`. JOB is a JSON file:

    kind        "model": an MLflow model URI, called through pyfunc; "reference": a checkpoint folder, in PyTorch
    model       the URI or the folder
    messages    the evaluation set, a list of message lists
    max_tokens  of an answer
    speed       null, or {"messages", "tokens", "least", "most", "seconds"}: how to measure speed

RESULT becomes {"answers", "load_s", "size_bytes", "peak_rss_bytes", "ttft_s", "decode"}, or {"error": one line}.
One byte goes to the descriptor PROGRESS_FD for each answer.

Times are wall time of whole requests, as a client would see them. Time to first token is a request for one token whose
prompt begins as none before it, so that a model that keeps prompts has to read it. A decode sample is [seconds of a
request beyond those of the same request for one token, its answer's tokens, of which the first is not decode].
"""

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

Answer = tuple[str, int]  # the text, and the tokens that were generated for it


class LoggedModel:
    """An MLflow model with the signature `llm/v1/chat`."""

    def __init__(self, uri: str) -> None:
        import mlflow

        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
        self.size_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        self._model = mlflow.pyfunc.load_model(str(folder))

    def answer(self, messages: list[dict[str, str]], max_tokens: int) -> Answer:
        """One request; a model may answer with the object itself or with a list of one."""
        result: Any = self._model.predict({"messages": messages, "max_tokens": max_tokens})
        result = result[0] if isinstance(result, list) else result
        return result["choices"][0]["message"]["content"], result["usage"]["completion_tokens"]


class Reference:
    """A checkpoint in PyTorch, decoding greedily."""

    size_bytes = 0

    def __init__(self, folder: str) -> None:
        os.environ["HF_HUB_OFFLINE"] = "1"
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()

    def answer(self, messages: list[dict[str, str]], max_tokens: int) -> Answer:
        """One greedy answer."""
        import torch

        ids = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
        with torch.no_grad():
            output = self._model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_tokens, do_sample=False
            )
        new = output[0, ids.shape[1] :]
        return self._tokenizer.decode(new, skip_special_tokens=True).lstrip(), len(new)


def run(job: dict[str, Any], progress_fd: int) -> dict[str, Any]:
    """Answer every question, then measure speed."""
    start = time.perf_counter()
    model = (LoggedModel if job["kind"] == "model" else Reference)(job["model"])
    load_s = time.perf_counter() - start
    answers = []
    for messages in job["messages"]:
        answers.append(model.answer(messages, job["max_tokens"])[0])
        os.write(progress_fd, b".")
    ttft_s, decode = measure_speed(model, **job["speed"]) if job["speed"] else ([], [])
    return {
        "answers": answers,
        "load_s": load_s,
        "size_bytes": model.size_bytes,
        "peak_rss_bytes": peak_rss(),
        "ttft_s": ttft_s,
        "decode": decode,
    }


def peak_rss() -> int:
    """The process's largest resident set so far, bytes: VmHWM, since ru_maxrss begins at the parent's on Linux."""
    try:
        status = Path("/proc/self/status").read_text()
        return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):  # macOS, where getrusage counts bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure_speed(
    model: Any, messages: list[dict[str, str]], tokens: int, least: int, most: int, seconds: float
) -> tuple[list[float], list[list[float]]]:
    """Time a new request for one token, the known one for one and for `tokens`, in turn, `least` to `most` times."""

    def timed(asked: list[dict[str, str]], limit: int) -> tuple[float, int]:
        start = time.perf_counter()
        _, count = model.answer(asked, limit)
        return time.perf_counter() - start, count

    model.answer(messages, tokens)  # warm-up
    ttft_s, decode = [], []
    begin = time.perf_counter()
    while len(decode) < least or (len(decode) < most and time.perf_counter() - begin < seconds):
        first = messages[0] | {"content": f"{len(decode)}. {messages[0]['content']}"}
        ttft_s.append(timed([first, *messages[1:]], 1)[0])
        known, _ = timed(messages, 1)
        whole, count = timed(messages, tokens)
        decode.append([whole - known, count])
    return ttft_s, decode


def main() -> None:
    """Do the job that the first argument names."""
    job, result = Path(sys.argv[1]), Path(sys.argv[2])
    try:
        content = run(json.loads(job.read_text(encoding="utf-8")), int(sys.argv[3]))
    except Exception as error:
        result.write_text(json.dumps({"error": " ".join(f"{type(error).__name__}: {error}".split())}))
        raise
    result.write_text(json.dumps(content), encoding="utf-8")


if __name__ == "__main__":
    main()
