"""Answer the requests of serve.py with the engine in process, as a program that imports the model does: no HTTP.

Usage: python -m tests.benchmarks.serve_engine MODEL      (an MLflow model of this project)

Output: a line when the model is loaded. Then for each line of JSON on stdin, {"prompts": of each client, "new", "gap",
"stream"}, a line with a round as serve_clients.Round.sample has it. Each client is a thread, which waits for the whole
answers or reads them piece by piece (`stream`).
"""

import json
import os
import sys
import threading
import time
from typing import Any

from tests.benchmarks.serve_clients import Answered, Round, starts


def time_round(service: Any, request: dict[str, Any]) -> Round:
    """Let clients ask the service's engine."""
    from steps.chat.api.sampling import Sampling

    answers: list[Answered] = []

    def client(delay: float, prompts: list[list[int]]) -> None:
        time.sleep(delay)
        for prompt in prompts:
            start, first = time.perf_counter(), 0.0
            sampling = Sampling(request["new"], temperature=0.0, ignore_eos=True)
            generation = service.engine.submit(prompt, sampling, chat=False, stream=request["stream"])
            if request["stream"]:
                for _ in generation:
                    first = first or time.perf_counter()
            done = generation.completion or generation.wait()
            first_token_s = first - start if first else done.first_token_s
            answers.append(Answered(first_token_s, time.perf_counter() - start, done.completion_tokens))

    start = time.perf_counter()
    delays = starts(len(request["prompts"]), request["gap"])
    threads = [threading.Thread(target=client, args=pair) for pair in zip(delays, request["prompts"], strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Round(time.perf_counter() - start, tuple(answers))


def main() -> None:
    """Load the model, then answer each line of stdin."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import mlflow

    python_model: Any = mlflow.pyfunc.load_model(sys.argv[1]).unwrap_python_model()
    print(json.dumps({"ready": sys.argv[1]}), file=out, flush=True)
    for line in sys.stdin:
        print(json.dumps(time_round(python_model._service, json.loads(line)).sample()), file=out, flush=True)


if __name__ == "__main__":
    main()
