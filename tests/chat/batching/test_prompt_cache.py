"""The prompt cache on real ONNX models: what is reused, what is not mixed, and how much is kept."""

import random
import threading

import pytest
from mlflow.exceptions import MlflowException

from steps.chat.api.requests import Sampling
from steps.chat.batching.engine import Engine
from steps.chat.runtime import shared_buffer
from steps.chat.settings import Settings
from tests.chat.batching.asking import QUESTIONS

pytestmark = pytest.mark.model


def test_a_follow_up_prefills_its_own_tokens_and_gets_the_answer_without_reuse(fp32_engine, converted):
    messages, figures = [], []
    for question in random.Random(1).sample(QUESTIONS, 8):
        messages.append({"role": "user", "content": question})
        with_reuse = fp32_engine.submit(fp32_engine.tokenizer.encode_chat(messages, []), Sampling(64)).wait()
        fresh = Engine(converted["genai fp32"])
        without = fresh.submit(fresh.tokenizer.encode_chat(messages, []), Sampling(64)).wait()
        assert (with_reuse.text, without.reused_tokens) == (without.text, 0)
        figures.append((with_reuse.prompt_tokens, with_reuse.reused_tokens))
        messages.append({"role": "assistant", "content": with_reuse.text})
    # Only the end of the last answer and the new question are new: some 20 tokens, however long the history is.
    assert all(prompt - reused < 30 for prompt, reused in figures), figures
    assert figures[-1][0] > 100


def test_choices_of_one_request_prefill_its_prompt_once(fp32_engine):
    prompt = fp32_engine.tokenizer.encode_chat([{"role": "user", "content": "Tell me: " + "who are you? " * 20}], [])
    answers = [fp32_engine.submit(prompt, Sampling(8, temperature=1.0, seed=1), choice) for choice in range(4)]
    reused = [answer.wait().reused_tokens for answer in answers]
    assert reused[1:] == [len(prompt) - 1] * 3


def test_histories_of_strangers_do_not_mix(fp32_engine):
    """Many conversations at once have the same beginning. Each answer follows from its own history."""

    def talk(seed: int, engine: Engine, out: dict) -> None:
        chosen, messages = random.Random(seed).sample(QUESTIONS, 4), []
        for question in chosen:
            messages.append({"role": "user", "content": question})
            text = engine.submit(engine.tokenizer.encode_chat(messages, []), Sampling(48)).wait().text
            messages.append({"role": "assistant", "content": text})
        out[seed] = [message["content"] for message in messages]

    together, alone = {}, {}
    threads = [threading.Thread(target=talk, args=(seed, fp32_engine, together)) for seed in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(12):
        talk(seed, fp32_engine, alone)
    assert together == alone


def test_the_budget_limits_the_sequences_in_the_cache(converted):
    engine = Engine(converted["genai fp32"], Settings(kv_cache_mb=1))
    assert engine.token_budget == (1 << 20) // (2 * 4 * 3 * 32 * 4)
    with pytest.raises(MlflowException, match=rf"at most {engine.token_budget - 1} fit.*raise kv_cache_mb"):
        engine.submit([5] * engine.token_budget, Sampling(4))
    answers = [engine.submit([7, 5 + n] * 40, Sampling(40)) for n in range(20)]
    assert all(answer.wait().completion_tokens for answer in answers)
    assert sum(sequence.size for sequence in engine._scheduler.cache.sequences()) <= engine.token_budget


def test_rows_grow_past_the_first_capacity(converted, monkeypatch):
    plain = Engine(converted["genai fp32"])
    monkeypatch.setattr(shared_buffer, "_FIRST_CAPACITY", 64)
    small = Engine(converted["genai fp32"])
    prompts = [plain.tokenizer.encode("What is the capital of France? " * count) for count in (1, 3, 9, 20)]
    generations = [[engine.submit(prompt, Sampling(80)) for prompt in prompts] for engine in (plain, small)]
    texts = [[generation.wait().text for generation in of_engine] for of_engine in generations]
    assert texts[0] == texts[1]
    assert small._scheduler._session._capacity > 64
