"""One engine in a process of its own, timed on command: what chat.py starts, one for each that it compares.

Usage: python chat_engines.py KIND PATH     reads JSON lines {"rep", "prompt", "new"}, answers {"prefill_s", "decode"}

KIND is `bare`, the runtime's own loop on a converted folder; `model`, an MLflow model of this project through
pyfunc.predict; `recipe`, the widely copied wrapper's loop (default threads, one row); `llama`, a GGUF file; `openvino`,
a folder. Each runs in the Python that has its packages, so only the standard library and numpy are imported at the top.
prefill_s: seconds for the prompt and the first token. decode: tokens a second of the `new` after it. No engine may use
what it read before: every repetition has a prompt of its own.
"""

import json
import os
import sys
import time

import numpy as np

PIECES = 768  # of the shipped tokenizer; the weights are random, and the checkpoint has its tokenizer


def tokens(rep: int, count: int) -> list[int]:
    """Another random prompt for each repetition."""
    return [int(token) for token in np.random.default_rng([rep, count]).integers(10, 700, count)]


def bare(path: str, threads: int | None):
    """ONNX Runtime GenAI's generator, without any wrapper."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime_genai as og

    config = og.Config(path)
    options = {"log_severity_level": 3} | ({"intra_op_num_threads": threads} if threads else {})
    config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
    model = og.Model(config)

    def run(rep: int, prompt: int, new: int) -> tuple[float, float]:
        params = og.GeneratorParams(model)
        params.set_search_options(max_length=prompt + new + 1, min_length=prompt + new + 1, do_sample=False)
        generator = og.Generator(model, params)
        start = time.perf_counter()
        generator.append_tokens(tokens(rep, prompt))
        generator.generate_next_token()
        middle = time.perf_counter()
        for _ in range(new):
            generator.generate_next_token()
        return middle - start, new / (time.perf_counter() - middle)

    return run


def model(path: str):
    """The logged model, as a client calls it. The second request of a pair finds the prompt's keys and values kept."""
    import logging

    logging.disable(logging.WARNING)
    import mlflow

    loaded = mlflow.pyfunc.load_model(path)
    words = np.random.default_rng(0)

    def run(rep: int, prompt: int, new: int) -> tuple[float, float]:
        text = "".join(chr(97 + int(n)) for n in words.integers(0, 26, 6 * prompt))
        low, high = 1, len(text)
        while low < high:  # the longest text of at most `prompt` tokens with its template
            middle = (low + high + 1) // 2
            low, high = (middle, high) if count(text[:middle]) <= prompt else (low, middle - 1)
        request = {"messages": [{"role": "user", "content": text[:low]}]}
        start = time.perf_counter()
        loaded.predict(request | {"max_tokens": 1})
        middle = time.perf_counter()
        answer = loaded.predict(request | {"max_tokens": new + 1})[0]
        return middle - start, answer["usage"]["completion_tokens"] / (time.perf_counter() - middle)

    service = loaded.unwrap_python_model()._service

    def count(text: str) -> int:
        return len(service.engine.prompts.chat([{"role": "user", "content": text}], []))

    return run


def llama(path: str):
    """llama.cpp by its Python binding."""
    import llama_cpp

    threads = len(os.sched_getaffinity(0))
    loaded = llama_cpp.Llama(path, n_ctx=2048, n_threads=threads, n_threads_batch=threads, n_batch=512, verbose=False)

    def run(rep: int, prompt: int, new: int) -> tuple[float, float]:
        loaded.reset()
        ids = tokens(rep, prompt)
        start = time.perf_counter()
        loaded.eval(ids)
        middle = time.perf_counter()
        for token in (ids * (new // prompt + 1))[:new]:
            loaded.eval([token])
        return middle - start, new / (time.perf_counter() - middle)

    return run


def openvino(path: str):
    """OpenVINO GenAI."""
    import openvino as ov
    import openvino_genai

    pipe = openvino_genai.LLMPipeline(path, "CPU")

    def run(rep: int, prompt: int, new: int) -> tuple[float, float]:
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = new + 1
        config.ignore_eos, config.do_sample = True, False
        ids = np.array([tokens(rep, prompt)], np.int64)
        metrics = pipe.generate(openvino_genai.TokenizedInputs(ov.Tensor(ids), ov.Tensor(np.ones_like(ids))), config)
        return metrics.perf_metrics.get_ttft().mean / 1e3, 1e3 / metrics.perf_metrics.get_tpot().mean

    return run


def main() -> None:
    """Load, then answer each line."""
    kind, path = sys.argv[1:3]
    threads = len(os.sched_getaffinity(0))
    loaders = {
        "bare": lambda: bare(path, threads),
        "recipe": lambda: bare(path, None),
        "model": lambda: model(path),
        "llama": lambda: llama(path),
        "openvino": lambda: openvino(path),
    }
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the engines print
    run = loaders[kind]()
    print(json.dumps({"ready": kind}), file=out, flush=True)
    for line in sys.stdin:
        prefill, decode = run(**json.loads(line))
        print(json.dumps({"prefill_s": prefill, "decode": decode}), file=out, flush=True)


if __name__ == "__main__":
    main()
