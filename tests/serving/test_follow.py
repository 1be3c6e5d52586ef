"""A new champion takes over without a lost request, and the old one finishes what it has."""

import asyncio
import threading
import time

import pytest
import requests

from steps.serving import live
from steps.serving.models import ServedModel
from tests.serving.harness import FRANCE, LONG, NAME, running

pytestmark = pytest.mark.model
CHAT = "/v1/chat/completions"


def follow(server, resolve, load) -> None:
    """Let the server follow an alias, in a loop of its own."""
    threading.Thread(target=lambda: asyncio.run(server.context.live.follow(resolve, load, 0.05)), daemon=True).start()


def wait_for(condition, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_new_model_takes_over_and_the_old_one_finishes(model_folder):
    old = ServedModel(str(model_folder), NAME, timeout=600)
    name = [old.uri]
    with running(old) as server:
        follow(server, lambda: name[0], lambda uri: ServedModel(str(model_folder), NAME, timeout=600))
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


def test_a_model_that_does_not_fit_or_does_not_load_changes_nothing(custom, monkeypatch, caplog):
    loads = []

    def load(uri: str) -> ServedModel:
        loads.append(uri)
        raise ValueError("damaged")

    with running(custom) as server:
        monkeypatch.setattr(live.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 0}))
        with caplog.at_level("WARNING"):
            follow(server, lambda: "models:/tiny-phi3/2", load)
            wait_for(lambda: "memory" in caplog.text)
        assert loads == []
        monkeypatch.undo()
        follow(server, lambda: "models:/tiny-phi3/3", load)
        wait_for(lambda: loads == ["models:/tiny-phi3/3"])
        assert server.post(CHAT, {"messages": FRANCE}).status_code == 200
        assert server.context.live.current is custom
