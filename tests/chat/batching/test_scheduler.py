"""The scheduler on real ONNX models: many callers, cancelled and failed generations, and closing."""

import gc
import random
import threading
from dataclasses import replace

import pytest
from mlflow.exceptions import MlflowException

from steps.chat.api.requests import Sampling
from steps.chat.batching.engine import Engine
from steps.chat.settings import Settings
from tests.chat.batching.asking import DIGITS, QA, QUESTIONS, ask, start

pytestmark = pytest.mark.model


def test_two_hundred_threads_at_once_get_their_own_answers(int4_engine):
    rows, texts = (QA * 2)[:200], {}

    def work(index: int) -> None:
        texts[index] = ask(int4_engine, rows[index]["messages"][0]["content"]).text

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(rows))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [texts[index] for index in range(len(rows))] == [row["expected"] for row in rows]


def test_a_late_request_does_not_wait_for_the_others_to_end(fp32_engine):
    long = Sampling(max_tokens=1500, response_format=DIGITS)
    running = [fp32_engine.submit(fp32_engine.tokenizer.encode(f"{n} "), long) for n in range(3)]
    streams = [iter(generation) for generation in running]
    for stream in streams:
        next(stream)
    assert ask(fp32_engine, "What is 2 plus 2?").text == "4"
    assert all(generation.completion is None and not generation.cancelled for generation in running)
    for stream in streams:
        stream.close()


def test_a_caller_that_stops_iterating_frees_its_row(converted):
    engine = Engine(converted["genai fp32"], Settings(parallel=1))
    long = engine.submit(engine.tokenizer.encode("1 "), Sampling(max_tokens=2000, response_format=DIGITS))
    pieces = iter(long)
    next(pieces)
    waiting = start(engine, "What is 2 plus 2?")
    pieces.close()
    assert waiting.wait().text == "4"
    assert len(long.generated) < 2000


def test_a_timeout_is_one_line(converted):
    engine = Engine(converted["genai fp32"], Settings(parallel=1, timeout=0.05))
    with pytest.raises(MlflowException, match=r"no answer within 0.05 s, the model config's timeout") as caught:
        engine.submit(engine.tokenizer.encode("1 "), Sampling(max_tokens=2000, response_format=DIGITS)).wait()
    assert caught.value.error_code == "DEADLINE_EXCEEDED"
    free = Engine(converted["genai fp32"], Settings(parallel=1))
    assert ask(free, "What is 2 plus 2?").text == "4"


def test_a_full_queue_refuses_and_serves_again_afterwards(converted):
    engine = Engine(converted["genai fp32"], Settings(parallel=1, queue=2))
    long = Sampling(max_tokens=2000, response_format=DIGITS)
    running = engine.submit(engine.tokenizer.encode("1 "), long)
    next(pieces := iter(running))  # it has a row
    waiting = [start(engine, "What is 2 plus 2?") for _ in range(2)]
    with pytest.raises(MlflowException, match="2 requests are waiting, .*queue holds 2: try again later") as caught:
        start(engine, "What is 2 plus 2?")
    assert caught.value.get_http_status_code() == 429
    pieces.close()
    assert [answer.wait().text for answer in waiting] == ["4", "4"]


def test_closing_ends_the_thread_and_fails_what_waits(converted):
    gc.collect()
    before = threading.active_count()
    engine = Engine(converted["genai fp32"], Settings(parallel=1))
    running = engine.submit(engine.tokenizer.encode("1 "), Sampling(max_tokens=2000, response_format=DIGITS))
    waiting = start(engine, "What is 2 plus 2?")
    engine.close()
    for answer in (running, waiting):
        with pytest.raises(MlflowException, match="the model was closed"):
            answer.wait()
    with pytest.raises(MlflowException, match="the model was closed"):
        ask(engine, "What is 2 plus 2?")
    assert threading.active_count() == before


def test_an_engine_that_nobody_uses_any_more_ends_its_thread(converted):
    gc.collect()  # the engines of other tests
    before = threading.active_count()
    engine = Engine(converted["genai fp32"])
    assert threading.active_count() == before + 1
    del engine
    gc.collect()
    assert threading.active_count() == before


def test_a_fault_of_the_runtime_fails_the_running_generations_and_the_next_is_answered(converted, monkeypatch):
    engine = Engine(converted["genai fp32"])
    session = engine._scheduler._session
    broken = replace(session.graph, present_names=("no such output",) * len(session.graph.present_names))
    monkeypatch.setattr(session, "graph", broken)
    with pytest.raises(MlflowException, match="the runtime failed: "):
        ask(engine, "What is 2 plus 2?")
    monkeypatch.undo()
    assert ask(engine, "What is 2 plus 2?").text == "4"


def test_a_generation_that_is_cancelled_during_its_admission_harms_no_other(converted, monkeypatch):
    """Another caller's put drops it from the queue, just before the engine takes it out."""
    engine = Engine(converted["genai fp32"])
    admit, cancelled, others = engine._scheduler.cache.admit, [], []

    def admit_late(*args, **kwargs):
        sequence = admit(*args, **kwargs)
        if cancelled and not others:
            cancelled[0].cancel()
            others.append(start(engine, "What is 2 plus 2?"))
        return sequence

    running = engine.submit(engine.tokenizer.encode("1 "), Sampling(max_tokens=300, response_format=DIGITS))
    next(pieces := iter(running))
    monkeypatch.setattr(engine._scheduler.cache, "admit", admit_late)
    with engine._scheduler._queue._changed:  # the engine must not admit it before it is in the list
        cancelled.append(start(engine, "Who are you?"))
    while not others:
        next(pieces)
    assert others[0].wait().text == "4"
    assert len("".join(pieces)) > 0 and running.completion.completion_tokens == 300
    assert engine._scheduler.cache.active == []


def test_a_generation_whose_admission_fails_fails_alone(converted, monkeypatch):
    engine = Engine(converted["genai fp32"])

    def no_memory(*args, **kwargs):
        raise MemoryError("no memory")

    monkeypatch.setattr(engine._scheduler.cache, "admit", no_memory)
    with pytest.raises(MlflowException, match="the runtime failed: MemoryError: no memory"):
        ask(engine, "What is 2 plus 2?")
    monkeypatch.undo()
    assert ask(engine, "What is 2 plus 2?").text == "4"


def test_rows_that_move_when_another_generation_ends_keep_their_answers(converted):
    """A long prompt lies between the decoding rows, so that they decode in two groups; then a row of the first ends.

    The last row moves into the gap. Its step must be over before that.
    """
    tokens = random.Random(1)
    requests = [  # tokens of the prompt, tokens of the answer
        (3, 90),
        (3, 30),  # ends second: the last row moves here from the second group
        (3, 10),  # ends first: the long prompt moves here
        (3, 90),
        (3, 90),
        (200, 5),
    ]
    prompts = [[tokens.randrange(10, 700) for _ in range(count)] for count, _ in requests]
    settings = Settings(ignore_eos=True, prefill_chunk=2)
    alone, together = (Engine(converted["genai fp32"], settings) for _ in range(2))
    expected = []
    for prompt, (_, count) in zip(prompts, requests, strict=True):
        generation = alone.submit(prompt, Sampling(count))
        generation.wait()
        expected.append(generation.generated)
    generations = [
        together.submit(prompt, Sampling(count)) for prompt, (_, count) in zip(prompts, requests, strict=True)
    ]
    for generation in generations:
        generation.wait()
    assert [generation.generated for generation in generations] == expected


def test_memory_of_the_process_does_not_grow_with_the_requests(int4_engine):
    import psutil

    def serve(count: int) -> int:
        for number in range(count):
            ask(int4_engine, QUESTIONS[number % len(QUESTIONS)], max_tokens=6)
        gc.collect()
        return psutil.Process().memory_info().rss

    before = serve(600)
    assert serve(600) - before < 8 << 20
