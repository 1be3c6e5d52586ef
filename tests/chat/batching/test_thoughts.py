"""Reasoning models in the engine: the shipped model with another tokenizer or template, see tests/chat/thinking.py."""

import re
from pathlib import Path

import pytest

from steps.chat.batching.engine import Engine
from steps.chat.batching.generation import Completion, interleaved
from steps.chat.settings import Settings
from tests.chat.batching.asking import COUNT, ask, start
from tests.chat.thinking import with_opening_template, with_tags

pytestmark = pytest.mark.model
FORMAT = {"type": "regex", "regex": "[A-Z][a-z]{3}"}
DIGITS = {"type": "regex", "regex": "[0-9]{300}"}


@pytest.fixture(scope="module")
def folders(converted, tmp_path_factory) -> dict[str, Path]:
    """Converted folders of reasoning models."""
    scratch, original = tmp_path_factory.mktemp("thinking"), converted["genai fp32"]
    return {
        "plain tags": with_tags(original, scratch / "plain", special=False),
        "special tags": with_tags(original, scratch / "special", special=True),
        "template": with_opening_template(original, scratch / "template"),
    }


@pytest.fixture(scope="module", params=["plain tags", "special tags"])
def opening(folders, request) -> Engine:
    """A model that writes "<think> 2 3 4 5 6</think> 8 9 ..." when it counts."""
    return Engine(folders[request.param])


@pytest.fixture(scope="module")
def opened(folders) -> Engine:
    """A model whose template opens the thought. Its tags are several tokens each."""
    return Engine(folders["template"])


def test_a_thought_is_separated_from_the_answer_and_counted(opening, fp32_engine):
    done, plain = ask(opening, COUNT), ask(fp32_engine, COUNT)
    assert done.thought == "2 3 4 5 6" and done.text.startswith("8 9 10 11")
    assert done.thought_tokens == 7, "five numbers and two tags"
    assert (done.completion_tokens, done.finish_reason) == (plain.completion_tokens, "stop")
    assert (plain.thought, plain.thought_tokens) == ("", None)


def test_the_pieces_of_a_stream_are_the_whole(opening):
    *pieces, end = [event[1] for event in interleaved([start(opening, COUNT)]) if event]
    assert isinstance(end, Completion)
    thoughts = [piece.text for piece in pieces if piece.is_thought]
    assert thoughts == ["2", " 3", " 4", " 5", " 6"] == [piece.text for piece in pieces[:5]]
    assert "".join(piece.text for piece in pieces[5:]) == end.text and end.thought == "".join(thoughts)


def test_tags_of_a_model_that_is_no_reasoning_model_are_left_alone(folders):
    done = ask(Engine(folders["plain tags"], Settings(reasoning="off")), COUNT)
    assert done.text.startswith("<think> 2 3 4 5 6</think> 8 9") and done.thought_tokens is None


def test_an_answer_without_a_thought_is_the_answer(opening):
    done = ask(opening, "What is the capital of France?")
    assert (done.text, done.thought, done.thought_tokens) == ("Paris", "", 0)


def test_a_thought_without_an_end_leaves_no_answer(folders):
    engine = Engine(folders["plain tags"], Settings(answer_share=0.0))
    done = ask(engine, COUNT, max_tokens=4)
    assert (done.text, done.thought, done.finish_reason) == ("", "2 3 4", "length")
    assert done.thought_tokens == done.completion_tokens == 4


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_a_share_of_max_tokens_is_kept_for_the_answer(folders, share):
    engine = Engine(folders["template"], Settings(answer_share=share))
    done = ask(engine, COUNT, max_tokens=40)
    assert done.thought_tokens == 40 * (1 - share), "with the six tokens of the closing tag"
    assert done.thought.startswith("1 2 3 4 5") and "<" not in done.thought
    assert (done.completion_tokens, done.finish_reason) == (40, "length") and done.text
    without = ask(Engine(folders["template"], Settings(answer_share=0.0)), COUNT, max_tokens=40)
    assert without.text == "" and without.thought.startswith(done.thought)


def test_the_share_is_kept_where_the_tag_is_one_token(opening):
    done = ask(opening, COUNT, max_tokens=8)
    assert (done.thought, done.thought_tokens) == ("2 3 4 5", 6), "a quarter of 8 tokens is left"
    assert done.text and done.completion_tokens == 8


def test_too_few_tokens_for_a_tag_and_an_answer_are_all_thought(opened):
    done = ask(opened, COUNT, max_tokens=5)
    assert (done.text, done.thought_tokens, done.finish_reason) == ("", 5, "length")


def test_a_response_format_begins_after_the_thought(opening):
    done = ask(opening, COUNT, response_format=FORMAT)
    assert done.thought == "2 3 4 5 6" and re.fullmatch("[A-Z][a-z]{3}", done.text)
    assert done.finish_reason == "stop"


def test_a_response_format_holds_where_the_model_does_not_think(opening):
    done = ask(opening, "What is the capital of France?", response_format={"type": "regex", "regex": "[A-Z][a-z]+"})
    assert (done.text, done.thought, done.thought_tokens) == ("Paris", "", 0)


@pytest.mark.parametrize("question", [COUNT, "Who are you?", "What is the capital of France?"])
def test_a_response_format_follows_a_thought_that_the_template_opened(opened, question):
    """The first thought is cut at the share; the others end with an end token, in whose place the closing tag is."""
    done = ask(opened, question, max_tokens=40, response_format=DIGITS)
    assert re.fullmatch("[0-9]+", done.text) and done.finish_reason == "length" and done.completion_tokens == 40
    assert done.thought and done.thought_tokens <= 30


def test_stop_strings_end_the_answer_and_not_the_thought(opening):
    done = ask(opening, COUNT, stop=["4", " 9"])
    assert (done.thought, done.text, done.finish_reason) == ("2 3 4 5 6", "8", "stop")


def test_a_prompt_that_is_no_conversation_keeps_its_tags(folders):
    from steps.chat.api.requests import Sampling

    engine = Engine(folders["plain tags"])
    prompt = engine.tokenizer.encode(f"<|user|>\n{COUNT}<|end|>\n<|assistant|>\n")
    done = engine.submit(prompt, Sampling(max_tokens=8), chat=False).wait()
    assert done.text == "<think> 2 3 4 5 6</think> 8" and done.thought_tokens is None


def test_the_same_seed_gives_the_same_thought_and_answer(opened):
    fields = {"temperature": 1.5, "seed": 3, "max_tokens": 40}
    first, second = (ask(opened, COUNT, **fields) for _ in range(2))
    assert (first.thought, first.text) == (second.thought, second.text)
