"""Time one engine on command, in a process of its own. chat.py starts a process for each engine that it compares.

Usage: python chat_engines.py KIND PATH

KIND is one of:
bare      the runtime's own loop on a converted folder
recipe    the loop of the widely copied wrapper on a converted folder: default threads, one row
model     an MLflow model of this project, through pyfunc.predict
llama     a GGUF file, by llama.cpp
openvino  a folder, by OpenVINO GenAI

Output: a line when the engine is loaded. Then for each line of JSON on stdin, {"rep", "prompt", "new"}, a line of JSON:
prefill_s  seconds for `prompt` tokens and the first token of the answer
decode     tokens a second of the `new` tokens after it

No engine may use a prompt that it has read before, so every repetition has a prompt of its own. Each engine runs in the
Python that has its packages, so only the standard library and numpy are imported at the top.
"""

import json
import os
import sys
import time
from collections.abc import Callable

import numpy as np

Timing = Callable[[int, int, int], tuple[float, float]]  # (repetition, prompt, new) -> (prefill_s, decode)


def random_tokens(rep: int, count: int) -> list[int]:
    """Return a prompt for a repetition, of tokens that the shipped tokenizer has. The weights are random anyway."""
    return [int(token) for token in np.random.default_rng([rep, count]).integers(10, 700, count)]


def usable_cpus() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0))


def bare(path: str, threads: int | None) -> Timing:
    """Load ONNX Runtime GenAI's generator, without any wrapper. `threads` None is the runtime's default."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime_genai as og

    config = og.Config(path)
    options = {"log_severity_level": 3} | ({"intra_op_num_threads": threads} if threads else {})
    config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
    model = og.Model(config)

    def time_request(rep: int, prompt: int, new: int) -> tuple[float, float]:
        params = og.GeneratorParams(model)
        params.set_search_options(max_length=prompt + new + 1, min_length=prompt + new + 1, do_sample=False)
        generator = og.Generator(model, params)
        start = time.perf_counter()
        generator.append_tokens(random_tokens(rep, prompt))
        generator.generate_next_token()
        first_token = time.perf_counter()
        for _ in range(new):
            generator.generate_next_token()
        return first_token - start, new / (time.perf_counter() - first_token)

    return time_request


def model(path: str) -> Timing:
    """Load the logged model, and ask it as a client does.

    A repetition is two requests with the same prompt. The second finds the prompt's keys and values in the prompt
    cache, so its time is the time of decoding.
    """
    import logging

    logging.disable(logging.WARNING)
    import mlflow

    loaded = mlflow.pyfunc.load_model(path, model_config={"ignore_eos": True})
    tokenizer = loaded.unwrap_python_model()._service.engine.tokenizer
    letters = np.random.default_rng(0)

    def prompt_of(tokens: int) -> list[dict[str, str]]:
        """Return the longest conversation of random letters that has at most this many tokens with its template."""
        text = "".join(chr(97 + int(number)) for number in letters.integers(0, 26, 6 * tokens))
        low, high = 1, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            fits = len(tokenizer.encode_chat([{"role": "user", "content": text[:middle]}], [])) <= tokens
            low, high = (middle, high) if fits else (low, middle - 1)
        return [{"role": "user", "content": text[:low]}]

    def time_request(rep: int, prompt: int, new: int) -> tuple[float, float]:
        request = {"messages": prompt_of(prompt)}
        start = time.perf_counter()
        loaded.predict(request | {"max_tokens": 1})
        first_token = time.perf_counter()
        answer = loaded.predict(request | {"max_tokens": new + 1})[0]
        return first_token - start, answer["usage"]["completion_tokens"] / (time.perf_counter() - first_token)

    return time_request


def llama(path: str) -> Timing:
    """Load llama.cpp by its Python binding."""
    import llama_cpp

    threads = usable_cpus()
    loaded = llama_cpp.Llama(path, n_ctx=2048, n_threads=threads, n_threads_batch=threads, n_batch=512, verbose=False)

    def time_request(rep: int, prompt: int, new: int) -> tuple[float, float]:
        loaded.reset()
        tokens = random_tokens(rep, prompt)
        start = time.perf_counter()
        loaded.eval(tokens)
        first_token = time.perf_counter()
        for token in (tokens * (new // prompt + 1))[:new]:
            loaded.eval([token])
        return first_token - start, new / (time.perf_counter() - first_token)

    return time_request


def openvino(path: str) -> Timing:
    """Load OpenVINO GenAI, which measures its own times."""
    import openvino as ov
    import openvino_genai

    pipeline = openvino_genai.LLMPipeline(path, "CPU")

    def time_request(rep: int, prompt: int, new: int) -> tuple[float, float]:
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = new + 1
        config.ignore_eos, config.do_sample = True, False
        tokens = np.array([random_tokens(rep, prompt)], np.int64)
        inputs = openvino_genai.TokenizedInputs(ov.Tensor(tokens), ov.Tensor(np.ones_like(tokens)))
        metrics = pipeline.generate(inputs, config).perf_metrics
        return metrics.get_ttft().mean / 1e3, 1e3 / metrics.get_tpot().mean

    return time_request


LOADERS: dict[str, Callable[[str], Timing]] = {
    "bare": lambda path: bare(path, usable_cpus()),
    "recipe": lambda path: bare(path, None),
    "model": model,
    "llama": llama,
    "openvino": openvino,
}


def main() -> None:
    """Load the engine, then answer each line of stdin."""
    kind, path = sys.argv[1:3]
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the engines print to stdout
    time_request = LOADERS[kind](path)
    print(json.dumps({"ready": kind}), file=out, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        prefill, decode = time_request(request["rep"], request["prompt"], request["new"])
        print(json.dumps({"prefill_s": prefill, "decode": decode}), file=out, flush=True)


if __name__ == "__main__":
    main()
