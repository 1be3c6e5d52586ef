"""What two conveniences of the logged model cost: the check of its files when it loads, and the switch for traces."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypedDict

from steps.chat import service
from steps.chat.batching.engine import Engine
from steps.chat.service import Service
from tests.benchmarks.chat_models import ConvertedModel
from tests.benchmarks.machine import log

_WARM_UP, _REQUESTS = 200, 2_000


class LoadSample(TypedDict):
    """Seconds of loading a model, with the SHA-256 of its files compared meanwhile, and without."""

    checked: float
    unchecked: float


class RequestSample(TypedDict):
    """Seconds of a request of one token, with the switch for traces (off), and without the switch."""

    switch: float
    none: float


def _load(model: ConvertedModel, name: str) -> Service:
    """Load a model as its logged form does, with its checksums."""
    checksums = model.folder.parent / f"{name}-checksums.json"
    checksums.write_text(json.dumps([file.model_dump() for file in model.conversion.files]))
    return Service(model.folder, checksums, {"model": name, "max_tokens": 1, "trace": False})


def time_loads(model: ConvertedModel, reps: int) -> list[LoadSample]:
    """Time loading with and without the check, in turn, `reps` times. One more repetition before them warms up."""

    def seconds(load: Callable[[], Engine]) -> float:
        start = time.perf_counter()
        load().close()
        return time.perf_counter() - start

    samples = []
    for rep in range(reps + 1):
        for file in model.folder.iterdir():
            file.touch()  # a process hashes a file only once, unless the file has changed
        checked = seconds(lambda: _load(model, "checked").engine)
        sample = LoadSample(checked=checked, unchecked=seconds(lambda: Engine(model.folder)))
        log(sample)
        if rep:
            samples.append(sample)
    return samples


@contextmanager
def _without_switch() -> Iterator[None]:
    """Take the switch for traces out of the service. A logged model has no setting for that."""
    before: Any = service.traced
    replacement: Any = lambda *_: nullcontext(lambda *_: None)  # noqa: E731
    service.traced = replacement
    try:
        yield
    finally:
        service.traced = before


def time_requests(model: ConvertedModel) -> list[RequestSample]:
    """Time 2,000 requests with and without the switch, in turn, after 200 to warm up."""
    loaded = _load(model, "requests")
    rows = [{"messages": [{"role": "user", "content": "What is the capital of France?"}]}]

    def seconds() -> float:
        start = time.perf_counter()
        loaded.chat(rows)
        return time.perf_counter() - start

    samples = []
    for _ in range(_WARM_UP + _REQUESTS):
        with_switch = seconds()
        with _without_switch():
            samples.append(RequestSample(switch=with_switch, none=seconds()))
    loaded.engine.close()
    return samples[_WARM_UP:]
