"""The logged model's tokenizer and chat template against transformers', for every kind of tokenizer that Phi has.

The tokens are those of the converted folder: the exporter writes the tokenizer's files anew.
"""

import pytest

from steps.conversion.tokenizer_check import ALL_TEXTS

pytestmark = pytest.mark.model


def _user(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def test_the_tokenizers_load_as_the_published_ones_do(pairs):
    assert type(pairs("phi-3-mini").reference).__name__ == "LlamaTokenizerFast"
    assert type(pairs("phi-4-mini").reference).__name__ == "GPT2TokenizerFast"
    assert any("Ġ" in token for token in pairs("phi-4-mini").reference.tokenize("a b"))
    assert "<0xF0>" in pairs("phi-3-mini").reference.tokenize("🏳"), "an unknown character is spelt in bytes"


@pytest.mark.parametrize("name", ALL_TEXTS)
def test_a_prompt_has_the_same_tokens(pair, name):
    messages = _user(ALL_TEXTS[name])
    assert pair.runtime.encode_chat(messages) == pair.reference.apply_chat_template(
        messages, add_generation_prompt=True
    )


@pytest.mark.parametrize("name", ALL_TEXTS)
def test_plain_text_has_the_same_tokens(pair, name):
    assert pair.runtime.encode(ALL_TEXTS[name]) == pair.expected(ALL_TEXTS[name])


@pytest.mark.parametrize("name", [name for name in ALL_TEXTS if name != "special tokens in the text"])
def test_tokens_are_decoded_to_the_same_text(pair, name):
    ids = pair.expected(ALL_TEXTS[name])
    assert pair.streamed(ids) == pair.reference.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize(
    "text",
    ["The quick brown fox, naïve café, 你好 👍. " * 2500, "abcdefgh" * 12_500, "使用语言模型" * 17_000, "\n" * 100_000],
    ids=["words", "one word", "Chinese", "newlines"],
)
def test_100_000_characters_have_the_same_tokens(pair, text):
    assert pair.runtime.encode_chat(_user(text)) == pair.reference.apply_chat_template(
        _user(text), add_generation_prompt=True
    )


@pytest.mark.parametrize("add_generation_prompt", [True, False])
@pytest.mark.parametrize(
    "roles",
    ["user", "system user", "user assistant user", "system user assistant user assistant", "assistant", "tool user"],
)
def test_a_conversation_has_the_same_text(pair, roles, add_generation_prompt):
    messages = [{"role": role, "content": f" {role}'s\n\nnaïve 你好 "} for role in roles.split()]
    arguments = {"add_generation_prompt": add_generation_prompt}
    expected = pair.reference.apply_chat_template(messages, tokenize=False, **arguments)
    assert pair.runtime.template.render(messages, **arguments) == expected


@pytest.mark.parametrize("text", ["{{ 1 }}{% if x %}", '"quoted" \\n \\u00e9 \\', "<b>&amp;</b>", "a\r\n\\\r\nb"])
def test_a_message_is_not_read_as_a_template_or_as_json(pair, text):
    prompt = pair.runtime.template.render(_user(text))
    assert text in prompt
    assert prompt == pair.reference.apply_chat_template(_user(text), add_generation_prompt=True, tokenize=False)


def test_half_a_character_is_decoded_by_transformers_alone(pair):
    ids = pair.expected("a🏳")[:-1]
    assert pair.reference.decode(ids).rstrip("\ufffd") == "a"
    assert pair.reference.decode(ids) != "a"
    assert pair.streamed(ids) == "a"


def test_an_answer_that_is_only_its_end_token_is_empty(pair):
    end = [pair.reference.convert_tokens_to_ids("<|end|>")]
    assert pair.streamed(end) == pair.reference.decode(end, skip_special_tokens=True) == ""
