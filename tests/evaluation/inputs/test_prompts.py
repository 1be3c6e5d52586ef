"""Prompts of given lengths and windows of a text, by the tokenizer of the shipped checkpoint."""

import numpy as np
import pytest

from steps.common.errors import StepError
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
    prompts_by_length = make_prompts(tokenizer, text, [32, 200], 12)
    for prompts, length in zip(prompts_by_length, (32, 200), strict=True):
        counts = [len(tokenizer.apply_chat_template(prompt, add_generation_prompt=True)) for prompt in prompts]
        assert np.abs(np.array(counts) - length).max() <= 2
    begins = [prompt[0]["content"].partition(".")[0] for prompts in prompts_by_length for prompt in prompts]
    assert len(set(begins)) == 24


def test_a_prompt_shorter_than_the_chat_template_is_refused(tokenizer):
    with pytest.raises(StepError, match="a prompt of 2 tokens is shorter than the chat template"):
        make_prompts(tokenizer, DOCUMENT, [2], 1)


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
