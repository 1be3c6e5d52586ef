"""The runtime's tokens, prompts and decoded text against transformers', for every kind of tokenizer."""

import sys

import pytest
from mlflow.exceptions import MlflowException

from tests.chat.runtime.pieces import pieces

pytestmark = pytest.mark.model

PIECES = 10_000  # for each of the 11 kinds of tokenizer, and other pieces for each: 110,000 in all


def test_pieces_of_text_have_transformers_tokens(both):
    texts = list(pieces(PIECES, seed=both.number))
    expected = both.reference(texts, add_special_tokens=False, verbose=False)["input_ids"]
    assert [both.runtime.encode(text) for text in texts] == expected


def test_conversations_have_transformers_tokens(both):
    texts = [text for text in pieces(300, seed=100) if text.strip() and not both.runtime._controls.occurrences(text)]
    for start in range(0, len(texts), 3):
        messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts[start:][:3])]
        expected = both.reference.apply_chat_template(messages, add_generation_prompt=True)
        assert both.runtime.encode_chat(messages) == expected


def test_streamed_text_is_the_text_of_all_tokens_at_once(both):
    for text in pieces(600, seed=1):
        tokens = both.runtime.encode(text)
        stream = both.runtime.stream_decoder()
        streamed = "".join(stream.decode(token) for token in tokens)
        expected = both.reference.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert streamed == expected, text


def test_a_text_that_goes_on_keeps_its_first_space(both):
    tokens = both.runtime.encode("the capital")
    stream = both.runtime.stream_decoder(continues=True)
    assert "".join(stream.decode(token) for token in tokens) in ("the capital", " the capital")


def test_no_piece_ends_within_a_character(both):
    stream = both.runtime.stream_decoder()
    tokens = both.runtime.encode("a👍🏽 中文 𐍈")
    if not both.has_bytes:
        pytest.skip("this tokenizer does not know these characters")
    parts = [stream.decode(token) for token in tokens]
    assert parts.count("") > 3  # tokens that end within a character
    assert "\ufffd" not in "".join(parts)


def test_a_token_of_a_stream_costs_the_same_work_anywhere_in_the_answer(both):
    """Count the calls of functions, and not the time, which depends on the machine."""
    tokens = both.runtime.encode("".join(pieces(40, seed=2)))
    early, late = _calls(both, tokens * 2), _calls(both, tokens * 10)
    assert late[-len(tokens) :] == early[-len(tokens) :]
    assert max(late) < 40


def _calls(both, tokens: list[int]) -> list[int]:
    """Return the function calls that each token of a stream takes, those of C functions too."""
    stream = both.runtime.stream_decoder()
    counts: list[int] = []

    def count(*_: object) -> None:
        counts[-1] += 1

    for token in tokens:
        counts.append(0)
        sys.setprofile(count)
        stream.decode(token)
        sys.setprofile(None)
    return counts


def test_a_stream_keeps_no_tokens(both):
    """The state of a decoder does not grow, so no token is decoded twice."""
    stream = both.runtime.stream_decoder()
    for token in both.runtime.encode("".join(pieces(300, seed=3))):
        stream.decode(token)
        assert not any(isinstance(value, list) for value in vars(stream).values())
        assert len(stream._utf8.getstate()[0]) < 4


def test_bytes_that_are_no_character_do_not_hold_the_text_back(both):
    if not both.has_bytes:
        pytest.skip("this tokenizer has no bytes")
    vocabulary = both.reference.get_vocab()
    token = vocabulary.get("<0xFF>", vocabulary.get("ÿ"))
    stream = both.runtime.stream_decoder()
    text = "".join(stream.decode(token) for token in [token] * 3 + both.runtime.encode("go on"))
    assert text.endswith("go on")


@pytest.mark.parametrize("bad", ["a\ud83d", "\udc00b"])
def test_half_a_surrogate_pair_is_refused_by_the_name_of_its_field(both, bad):
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": bad}]
    with pytest.raises(MlflowException, match=r"^messages\[1\]\.content has half of a surrogate pair") as refused:
        both.runtime.encode_chat(messages)
    assert refused.value.get_http_status_code() == 400
    with pytest.raises(MlflowException, match="^prompt has half of a surrogate pair"):
        both.runtime.encode(bad)


def test_a_checkpoint_without_a_chat_template_refuses_chats_and_reads_texts(both, tmp_path):
    import shutil

    from steps.chat.runtime.tokenizer import ChatTokenizer

    shutil.copy(both.folder / "tokenizer.json", tmp_path)
    tokenizer = ChatTokenizer(tmp_path)
    assert tokenizer.encode("Hello") == both.runtime.encode("Hello")
    with pytest.raises(MlflowException, match="no chat template: wrap it with the task llm/v1/completions"):
        tokenizer.encode_chat([{"role": "user", "content": "Hi"}])
