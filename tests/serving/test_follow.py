"""A new champion takes over without a lost request, and the old one finishes what it has."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator

import pytest
import requests

from steps.serving import live
from steps.serving.models import ServedModel
from tests.serving.harness import FRANCE, LONG, NAME, running

pytestmark = pytest.mark.model
CHAT = "/v1/chat/completions"


@contextlib.contextmanager
def following(server, resolve, load) -> Iterator[None]:
    """Let the server follow an alias, in a loop of its own, while the block runs."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(server.context.live.follow(resolve, load, 0.05))

    def work() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(60)
        loop.close()


def wait_for(condition, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_new_model_takes_over_and_the_old_one_finishes(model_folder):
    old = ServedModel(str(model_folder), NAME, timeout=600)
    name, loads = [old.uri], []

    def load(uri: str) -> ServedModel:
        loads.append(uri)
        model = ServedModel(str(model_folder), NAME, timeout=600)
        model.uri = uri
        return model

    with running(old) as server, following(server, lambda: name[0], load):
        body = LONG | {"max_tokens": 400, "stream": True}
        with requests.post(server.url + CHAT, json=body, stream=True, timeout=60) as response:
            lines = response.iter_lines()
            next(lines)
            name[0] = "models:/tiny-phi3/2"
            wait_for(lambda: server.context.live.current is not old)
            assert server.post(CHAT, {"messages": FRANCE}).status_code == 200
            assert [line for line in lines if line][-1] == b"data: [DONE]"
        wait_for(lambda: not old.service.engine._thread.is_alive())
        assert server.post(CHAT, {"messages": FRANCE}).json()["choices"][0]["message"]["content"] == "Paris"
        assert loads == ["models:/tiny-phi3/2"]


def test_no_request_is_lost_while_the_champion_changes(model_folder, custom):
    name, statuses, over = [custom.uri], [], threading.Event()

    def load(uri: str) -> ServedModel:
        model = ServedModel(str(model_folder), NAME, timeout=600)
        model.uri = uri
        return model

    def ask(server) -> None:
        while not over.is_set():
            statuses.append(server.post(CHAT, {"messages": FRANCE, "max_tokens": 2}).status_code)

    with running(load(custom.uri)) as server, following(server, lambda: name[0], load):
        threads = [threading.Thread(target=ask, args=(server,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for version in ("models:/tiny-phi3/2", "models:/tiny-phi3/3"):
            name[0] = version
            wait_for(lambda version=version: server.context.live.current.uri == version, 120)
        over.set()
        for thread in threads:
            thread.join()
    assert set(statuses) == {200}


def test_a_model_that_does_not_fit_or_does_not_load_changes_nothing(custom, monkeypatch, caplog):
    loads = []

    def load(uri: str) -> ServedModel:
        loads.append(uri)
        raise ValueError("damaged")

    with running(custom) as server:
        monkeypatch.setattr(live.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 0}))
        with caplog.at_level("WARNING"), following(server, lambda: "models:/tiny-phi3/2", load):
            wait_for(lambda: "memory" in caplog.text)
            assert loads == []
            monkeypatch.undo()  # there is memory again
            wait_for(lambda: loads == ["models:/tiny-phi3/2"])
            wait_for(lambda: "ValueError" in caplog.text)
        assert loads == ["models:/tiny-phi3/2"], "a damaged model is not tried again"
        assert server.post(CHAT, {"messages": FRANCE}).status_code == 200
        assert server.context.live.current is custom
