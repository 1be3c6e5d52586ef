"""The engine on real ONNX models: against PyTorch, against itself, and under many callers."""

import gc
import json
import random
import threading
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from mlflow.exceptions import MlflowException
from transformers import AutoModelForCausalLM

from steps.chat.api.requests import Sampling, parse_chat
from steps.chat.batching.engine import Engine
from steps.chat.runtime.cpus import usable_cpus
from steps.chat.settings import Settings
from steps.conversion.convert import convert
from steps.conversion.options import parse_choice
from tests.checkout import ROOT
from tests.checkpoints.geometries import GEOMETRIES, ORIGINAL_LENGTH

QA = [json.loads(line) for line in (ROOT / "params/evalsets/tiny-qa.jsonl").read_text().splitlines()]
ENDLESS = ("regex", "[0-9]{3000}")
COUNT = "Count from 1 to 40."
LONGROPE = [name for name, fields in GEOMETRIES.items() if fields["max_position_embeddings"] > ORIGINAL_LENGTH]


def start(engine: Engine, question: str, **fields):
    """One user turn, asked."""
    messages = [{"role": "user", "content": question}]
    request = parse_chat({"messages": messages} | fields, 128, engine.prompts.takes_tools)
    return engine.submit(engine.prompts.chat(request.messages, request.tools), request.sampling)


def ask(engine: Engine, question: str, **fields):
    """One user turn, answered."""
    return start(engine, question, **fields).wait()


@pytest.fixture(scope="module")
def engine(converted) -> Engine:
    """The int4 model."""
    return Engine(converted["genai int4"])


@pytest.fixture(scope="module")
def exact(converted) -> Engine:
    """The float32 model, whose answers don't depend on how prompts and rows are cut."""
    return Engine(converted["genai fp32"])


@pytest.mark.parametrize("variant", ["genai int4", "genai int8", "genai fp32", "optimum fp32"])
def test_every_variant_knows_the_whole_set_asked_one_by_one_and_all_at_once(converted, variant):
    loaded = Engine(converted[variant], Settings(queue=len(QA)))
    alone = [ask(loaded, row["messages"][0]["content"]).text for row in QA]
    asked = [start(loaded, row["messages"][0]["content"]) for row in QA]
    together = [answer.wait().text for answer in asked]
    assert alone == together == [row["expected"] for row in QA]


# --- One answer ------------------------------------------------------------------------------------------------------


def test_usage_counts_the_token_that_ends_the_answer(engine):
    done = ask(engine, "What is the capital of France?")
    assert (done.text, done.completion_tokens, done.finish_reason) == ("Paris", 3, "stop")
    assert done.prompt_tokens == 15
    assert 0 <= done.queued_s <= done.first_token_s <= done.total_s


def test_max_tokens_cuts_an_answer_off(engine):
    done = ask(engine, COUNT, max_tokens=5)
    assert (done.completion_tokens, done.finish_reason) == (5, "length")
    assert "1 2 3 4 5 6 7 8 9 10".startswith(done.text)


@pytest.mark.parametrize("stop", ["7", " 7 8", ["nothing", "7"], ["8", "7"]])
def test_a_stop_string_ends_the_answer_and_is_not_in_it(engine, stop):
    pieces = [*(answer := start(engine, COUNT, stop=stop))]
    assert "".join(pieces).strip() == answer.completion.text.strip() == "1 2 3 4 5 6"
    assert answer.completion.finish_reason == "stop"


def test_accents_survive_the_tokens_and_are_never_split(engine):
    pieces = [*(answer := start(engine, "What is the capital of Moldova?"))]
    assert "".join(pieces) == answer.completion.text == "Chișinău"
    assert "\ufffd" not in "".join(pieces) and len(pieces) > 1


def test_a_prompt_that_leaves_no_room_says_so(engine):
    with pytest.raises(MlflowException, match=r"the prompt has \d{4} tokens; at most 2047 fit"):
        ask(engine, "word " * 2100)
    assert ask(engine, "What is 2 plus 2?").text == "4"


def test_an_answer_ends_where_the_context_does(engine):
    prompt = engine.prompts.text("1 2 3 4 5 6 7 8 9 ")
    prompt = (prompt * 300)[: engine.context_length - 5]
    done = engine.submit(prompt, Sampling(max_tokens=100, form=ENDLESS)).wait()
    assert (done.completion_tokens, done.finish_reason) == (5, "length")


def test_sampling_is_only_done_on_request(engine):
    assert len({ask(engine, "Who are you?", max_tokens=24).text for _ in range(3)}) == 1
    assert len({ask(engine, "Who are you?", max_tokens=24, temperature=2.0).text for _ in range(6)}) > 1


def test_the_same_seed_gives_the_same_text_whoever_else_asks(exact):
    def run() -> str:
        return ask(exact, "Who are you?", max_tokens=24, temperature=2.0, seed=5).text

    alone = run()
    others = [start(exact, COUNT) for _ in range(5)]
    assert run() == alone
    assert all(other.wait().text == others[0].completion.text for other in others)
    assert len({ask(exact, "Who are you?", max_tokens=24, temperature=2.0, seed=seed).text for seed in range(6)}) > 1


def test_a_presence_penalty_keeps_tokens_from_coming_again(exact):
    free = ask(exact, COUNT, max_tokens=60)
    held = ask(exact, COUNT, max_tokens=60, presence_penalty=2.0, frequency_penalty=2.0)
    assert free.text != held.text


@pytest.mark.parametrize(
    ("form", "check"),
    [
        ({"type": "regex", "regex": "[A-Z]{3}-[0-9]{2}"}, lambda text: text[:3].isupper() and text[4:].isdigit()),
        (
            {
                "type": "json_schema",
                "json_schema": {
                    "schema": {
                        "type": "object",
                        "properties": {"city": {"enum": ["Paris", "Rome"]}, "sure": {"type": "boolean"}},
                        "required": ["city", "sure"],
                        "additionalProperties": False,
                    }
                },
            },
            lambda text: set(json.loads(text)) == {"city", "sure"},
        ),
    ],
)
def test_an_answer_keeps_to_its_form(engine, form, check):
    done = ask(engine, "What is the capital of France?", response_format=form)
    assert check(done.text) and done.finish_reason == "stop"


@pytest.mark.parametrize(
    "form",
    [
        {"type": "regex", "regex": "(("},
        {"type": "json_schema", "json_schema": {"schema": {"type": "strange"}}},
    ],
)
def test_a_form_that_cannot_be_followed_is_refused(engine, form):
    with pytest.raises(MlflowException, match=r"response_format: the (pattern|schema) cannot be followed: ") as caught:
        ask(engine, "Who are you?", response_format=form)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


# --- Many callers ----------------------------------------------------------------------------------------------------


def test_two_hundred_threads_at_once_get_their_own_answers(engine):
    rows, answers = (QA * 2)[:200], {}

    def work(index: int) -> None:
        answers[index] = ask(engine, rows[index]["messages"][0]["content"]).text

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(rows))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answers[i] for i in range(len(rows))] == [row["expected"] for row in rows]


def test_a_late_request_does_not_wait_for_the_others_to_end(exact):
    endless = Sampling(max_tokens=1500, form=ENDLESS)
    running = [exact.submit(exact.prompts.text(f"{n} "), endless) for n in range(3)]
    for answer in running:
        next(iter_ := iter(answer))
        answer.kept = iter_  # a generator that is dropped cancels
    assert ask(exact, "What is 2 plus 2?").text == "4"
    assert all(answer.completion is None and not answer.cancelled for answer in running)
    for answer in running:
        answer.kept.close()


def test_a_caller_that_stops_listening_frees_its_place(converted):
    engine = Engine(converted["genai fp32"], Settings(parallel=1))
    long = engine.submit(engine.prompts.text("1 "), Sampling(max_tokens=2000, form=ENDLESS))
    pieces = iter(long)
    next(pieces)
    waiting = start(engine, "What is 2 plus 2?")
    pieces.close()
    assert waiting.wait().text == "4"
    assert len(long.generated) < 2000


def test_a_timeout_is_one_line_and_frees_the_place(converted):
    engine = Engine(converted["genai fp32"], Settings(parallel=1, timeout=0.05))
    with pytest.raises(MlflowException, match=r"no answer within 0.05 s, the model config's timeout") as caught:
        engine.submit(engine.prompts.text("1 "), Sampling(max_tokens=2000, form=ENDLESS)).wait()
    assert caught.value.error_code == "DEADLINE_EXCEEDED"
    free = Engine(converted["genai fp32"], Settings(parallel=1))
    assert ask(free, "What is 2 plus 2?").text == "4"


def test_a_full_queue_refuses_and_serves_again_afterwards(converted):
    engine = Engine(converted["genai fp32"], Settings(parallel=1, queue=2))
    endless = Sampling(max_tokens=2000, form=ENDLESS)
    running = engine.submit(engine.prompts.text("1 "), endless)
    next(pieces := iter(running))  # it has its place
    waiting = [start(engine, "What is 2 plus 2?") for _ in range(2)]
    with pytest.raises(MlflowException, match="2 requests wait already, .* try later") as caught:
        start(engine, "What is 2 plus 2?")
    assert caught.value.get_http_status_code() == 429
    pieces.close()
    assert [answer.wait().text for answer in waiting] == ["4", "4"]


def test_closing_ends_the_thread_and_fails_what_waits(converted):
    gc.collect()
    before = threading.active_count()
    engine = Engine(converted["genai fp32"], Settings(parallel=1))
    running = engine.submit(engine.prompts.text("1 "), Sampling(max_tokens=2000, form=ENDLESS))
    waiting = start(engine, "What is 2 plus 2?")
    engine.close()
    for answer in (running, waiting):
        with pytest.raises(MlflowException, match="the model was closed"):
            answer.wait()
    with pytest.raises(MlflowException, match="the model was closed"):
        ask(engine, "What is 2 plus 2?")
    assert threading.active_count() == before


def test_an_engine_that_nobody_holds_ends_its_thread(converted):
    gc.collect()  # those of other tests
    before = threading.active_count()
    engine = Engine(converted["genai fp32"])
    assert threading.active_count() == before + 1
    del engine
    gc.collect()
    assert threading.active_count() == before


def test_a_fault_of_the_runtime_fails_those_in_the_step_and_the_next_are_served(converted, monkeypatch):
    engine = Engine(converted["genai fp32"])
    session = engine._scheduler._rows
    broken = replace(session.graph, present_names=("no such output",) * len(session.graph.present_names))
    monkeypatch.setattr(session, "graph", broken)
    with pytest.raises(MlflowException, match="the runtime failed: "):
        ask(engine, "What is 2 plus 2?")
    monkeypatch.undo()
    assert ask(engine, "What is 2 plus 2?").text == "4"


def test_a_request_given_up_while_it_is_admitted_harms_nobody(converted, monkeypatch):
    """Another caller's request finds it cancelled in the queue, and drops it, just before the engine takes it out."""
    engine = Engine(converted["genai fp32"])
    admit, given_up, others = engine._scheduler.memory.admit, [], []

    def admit_late(*args, **kwargs):
        row = admit(*args, **kwargs)
        if given_up and not others:
            given_up[0].cancel()
            others.append(start(engine, "What is 2 plus 2?"))
        return row

    running = engine.submit(engine.prompts.text("1 "), Sampling(max_tokens=300, form=ENDLESS))
    next(pieces := iter(running))
    monkeypatch.setattr(engine._scheduler.memory, "admit", admit_late)
    with engine._scheduler._changed:  # so that the engine does not admit it before the test knows it
        given_up.append(start(engine, "Who are you?"))
    while not others:
        next(pieces)
    assert others[0].wait().text == "4"
    assert len("".join(pieces)) > 0 and running.completion.completion_tokens == 300
    assert engine._scheduler.memory.active == []


def test_a_request_that_cannot_be_admitted_fails_alone(converted, monkeypatch):
    engine = Engine(converted["genai fp32"])

    def no_memory(*args, **kwargs):
        raise MemoryError("no memory")

    monkeypatch.setattr(engine._scheduler.memory, "admit", no_memory)
    with pytest.raises(MlflowException, match="the runtime failed: MemoryError: no memory"):
        ask(engine, "What is 2 plus 2?")
    monkeypatch.undo()
    assert ask(engine, "What is 2 plus 2?").text == "4"


# --- Conversation memory ---------------------------------------------------------------------------------------------


def test_a_follow_up_costs_its_own_tokens_and_the_answer_is_that_without_reuse(exact, converted):
    messages, figures = [], []
    for row in random.Random(1).sample(QA, 8):
        messages.append({"role": "user", "content": row["messages"][0]["content"]})
        with_reuse = exact.submit(exact.prompts.chat(messages, []), Sampling(64)).wait()
        fresh = Engine(converted["genai fp32"])
        without = fresh.submit(fresh.prompts.chat(messages, []), Sampling(64)).wait()
        assert (with_reuse.text, without.reused_tokens) == (without.text, 0)
        figures.append((with_reuse.prompt_tokens, with_reuse.reused_tokens))
        messages.append({"role": "assistant", "content": with_reuse.text})
    # All but the last answer's end and the new question, some 20 tokens, whatever the history's length.
    assert all(prompt - reused < 30 for prompt, reused in figures), figures
    assert figures[-1][0] > 100


def test_choices_of_one_request_read_its_prompt_once(exact):
    prompt = exact.prompts.chat([{"role": "user", "content": "Tell me: " + "who are you? " * 20}], [])
    answers = [exact.submit(prompt, Sampling(8, temperature=1.0, seed=1), choice) for choice in range(4)]
    reused = [answer.wait().reused_tokens for answer in answers]
    assert reused[1:] == [len(prompt) - 1] * 3


def test_histories_of_strangers_do_not_mix(exact):
    """Many conversations at once with the same beginning; every answer is the one that its own history gives."""
    questions = [row["messages"][0]["content"] for row in QA]

    def talk(seed: int, engine: Engine, out: dict) -> None:
        chosen, messages = random.Random(seed).sample(questions, 4), []
        for question in chosen:
            messages.append({"role": "user", "content": question})
            text = engine.submit(engine.prompts.chat(messages, []), Sampling(48)).wait().text
            messages.append({"role": "assistant", "content": text})
        out[seed] = [message["content"] for message in messages]

    together, alone = {}, {}
    threads = [threading.Thread(target=talk, args=(seed, exact, together)) for seed in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(12):
        talk(seed, exact, alone)
    assert together == alone


def test_a_budget_bounds_what_is_kept(converted):
    engine = Engine(converted["genai fp32"], Settings(kv_cache_mb=1))
    assert engine.budget == (1 << 20) // (2 * 4 * 3 * 32 * 4)
    with pytest.raises(MlflowException, match=rf"at most {engine.budget - 1} fit.*raise kv_cache_mb"):
        engine.submit([5] * engine.budget, Sampling(4))
    answers = [engine.submit([7, 5 + n] * 40, Sampling(40)) for n in range(20)]
    assert all(answer.wait().completion_tokens for answer in answers)
    memory = engine._scheduler.memory
    assert sum(text.size for text in memory._texts if text) <= engine.budget


def test_memory_grows_past_the_first_capacity(converted, monkeypatch):
    from steps.chat.runtime import shared_buffer

    plain = Engine(converted["genai fp32"])
    monkeypatch.setattr(shared_buffer, "_FIRST_CAPACITY", 64)
    small = Engine(converted["genai fp32"])
    prompts = [plain.prompts.text("What is the capital of France? " * count) for count in (1, 3, 9, 20)]
    found = [[engine.submit(prompt, Sampling(80)) for prompt in prompts] for engine in (plain, small)]
    assert [answer.wait().text for answer in found[0]] == [answer.wait().text for answer in found[1]]
    assert small._scheduler._rows._capacity > 64


# --- LongRoPE, where the runtime's own generator is wrong ------------------------------------------------------------


@pytest.fixture(scope="module")
def long_models(checkpoints, tmp_path_factory):
    """(exporter, geometry) -> engine and PyTorch's greedy answer."""
    kept = {}

    def load(exporter: str, geometry: str):
        if (exporter, geometry) not in kept:
            out = tmp_path_factory.mktemp("onnx") / "model"
            done = convert(checkpoints[geometry], out, parse_choice(exporter, "fp32", "", "cpu"))
            engine = Engine(out, Settings(longrope_switch=done.longrope_switch))
            reference = AutoModelForCausalLM.from_pretrained(checkpoints[geometry], dtype=torch.float32).eval()
            kept[exporter, geometry] = engine, reference
        return kept[exporter, geometry]

    return load


def greedy(reference, prompt: list[int], count: int) -> list[int]:
    ids = torch.tensor([prompt])
    with torch.no_grad():
        answer = reference.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False)
    return answer[0, len(prompt) :].tolist()


@pytest.mark.parametrize(("exporter", "geometry"), [*product(["genai"], LONGROPE), ("optimum", LONGROPE[0])])
def test_answers_are_pytorchs_on_both_sides_of_the_switch_and_across_it(long_models, exporter, geometry):
    """All at once, so that rows of both kinds are in one step; then again, from what the rows kept."""
    engine, reference = long_models(exporter, geometry)
    tokens = np.random.default_rng(0).integers(10, 700, ORIGINAL_LENGTH + 200).tolist()
    prompts = [tokens[:count] for count in (50, ORIGINAL_LENGTH - 4, ORIGINAL_LENGTH + 1, ORIGINAL_LENGTH + 100)]
    wanted = [greedy(reference, prompt, 10) for prompt in prompts]
    for _ in range(2):
        answers = [engine.submit(prompt, Sampling(10)) for prompt in prompts]
        for answer in answers:
            answer.wait()
        assert [answer.generated for answer in answers] == wanted


# --- Settings --------------------------------------------------------------------------------------------------------


def test_an_execution_provider_that_is_not_there_is_named_with_those_that_are(converted):
    for provider in ("cuda", "npu"):
        with pytest.raises(MlflowException, match=rf"provider is '{provider}'; this installation .* has: cpu"):
            Engine(converted["genai int4"], Settings(provider=provider))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"threads": -1}, "threads is -1; expected a whole number of at least 0"),
        ({"parallel": 0}, "parallel is 0"),
        ({"queue": "many"}, "queue is 'many'"),
        ({"kv_cache_mb": 1.5}, "kv_cache_mb is 1.5"),
        ({"timeout": -0.5}, "timeout is -0.5; expected a number of at least 0"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(config, message):
    with pytest.raises(MlflowException, match=message):
        Settings.of(config)


def test_settings_are_read_from_the_model_config():
    assert Settings.of({"threads": 3, "model": "phi", "timeout": 1.5}) == Settings(threads=3, timeout=1.5)


def test_threads_are_those_asked_for(converted):
    assert Engine(converted["genai int4"], Settings(threads=1)).threads == 1
    assert Engine(converted["genai int4"]).threads == usable_cpus()


def test_memory_of_the_process_does_not_grow_with_the_requests(engine):
    import psutil

    def serve(count: int) -> int:
        for number in range(count):
            ask(engine, QA[number % len(QA)]["messages"][0]["content"], max_tokens=6)
        gc.collect()
        return psutil.Process().memory_info().rss

    before = serve(600)
    assert serve(600) - before < 8 << 20


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, None),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "100000 100000"}, 1),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
    ],
)
def test_threads_follow_affinity_and_the_cgroups_quota(tmp_path, files, cpus):
    import os

    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cpus(tmp_path) == (cpus or len(os.sched_getaffinity(0)))
