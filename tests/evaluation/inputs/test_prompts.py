"""Prompts of given lengths and windows of a text, by the tokenizer of the shipped checkpoint."""

import numpy as np
import pytest

from steps.evaluation.inputs.prompts import make_prompts
from steps.evaluation.inputs.scored_text import Conversation, TextContent
from steps.evaluation.inputs.windows import make_windows, text_windows
from tests.checkout import TINY

pytestmark = pytest.mark.model  # transformers takes seconds to import

DOCUMENT = TextContent(documents=("It was the best of times, it was the worst of times. " * 200,))
CONVERSATIONS = TextContent(
    conversations=tuple(
        Conversation([{"role": "user", "content": f"What is {n} plus 1?"}], str(n + 1)) for n in range(40)
    )
)


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(TINY)


@pytest.mark.parametrize("text", [DOCUMENT, CONVERSATIONS])
def test_prompts_have_the_length_that_was_asked_for_and_no_two_begin_alike(tokenizer, text):
    prompts_by_length = make_prompts(tokenizer, text, [32, 200], 12, 2000)
    for prompts, length in zip(prompts_by_length, (32, 200), strict=True):
        counts = [len(tokenizer.apply_chat_template(prompt, add_generation_prompt=True)) for prompt in prompts]
        assert np.abs(np.array(counts) - length).max() <= 2
    begins = [prompt[0]["content"].partition(".")[0] for prompts in prompts_by_length for prompt in prompts]
    assert len(set(begins)) == 24


def test_prompts_grow_where_the_chat_template_alone_is_longer():
    """The templates of reasoning models have a system message of hundreds of tokens."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(TINY)
    tokenizer.chat_template = "Think before you answer. " * 40 + tokenizer.chat_template
    template = len(tokenizer.apply_chat_template([{"role": "user", "content": "24. "}], add_generation_prompt=True))
    assert template > 200
    prompts_by_length = make_prompts(tokenizer, DOCUMENT, [32, 200], 12, 2000)
    for prompts, length in zip(prompts_by_length, (template + 8, template + 8 + 200 - 32), strict=True):
        counts = [len(tokenizer.apply_chat_template(prompt, add_generation_prompt=True)) for prompt in prompts]
        assert np.abs(np.array(counts) - length).max() <= 2


@pytest.mark.parametrize(("limit", "lengths"), [(200, 2), (199, 1), (10, 1)])
def test_prompts_over_the_limit_are_left_out_but_the_first(tokenizer, limit, lengths):
    assert len(make_prompts(tokenizer, DOCUMENT, [32, 200], 1, limit)) == lengths


def test_windows_are_spread_over_the_text_and_predict_their_second_half():
    windows = text_windows(list(range(10_000)), 1024, 512)
    assert [window.tokens[0] for window in windows] == [0, 3162, 6325, 9488]
    assert {len(window.tokens) for window in windows} == {512}
    assert windows[0].targets == list(range(256, 512))
    assert [len(window.tokens) for window in text_windows(list(range(20)), 1024)] == [20]
    assert text_windows([1], 1024) == []


def test_of_a_conversation_only_the_answer_is_predicted(tokenizer):
    windows = make_windows(tokenizer, CONVERSATIONS, 1000)
    assert len(windows) == 40
    for window, conversation in zip(windows, CONVERSATIONS.conversations, strict=True):
        assert tokenizer.decode(window.targets) == conversation.answer


def test_a_document_gives_as_many_predicted_tokens_as_asked_for(tokenizer):
    assert sum(len(window.targets) for window in make_windows(tokenizer, DOCUMENT, 600)) >= 600
