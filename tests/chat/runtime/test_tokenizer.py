"""The runtime's tokens, prompts and decoded text against transformers', for every kind of tokenizer."""

import pytest
from mlflow.exceptions import MlflowException

from tests.chat.runtime.pieces import pieces

pytestmark = pytest.mark.model

PIECES = 3_000  # of each kind; tests/benchmarks/tokens.py compares 100,000


def test_pieces_of_text_have_transformers_tokens(both):
    texts = list(pieces(PIECES))
    expected = both.reference(texts, add_special_tokens=False, verbose=False)["input_ids"]
    assert [both.runtime.encode(text) for text in texts] == expected


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
    parts = [stream.decode(token) for token in both.runtime.encode("a👍🏽 中文 𐍈")]
    if both.reference.unk_token_id in both.runtime.encode("a👍🏽 中文 𐍈"):
        pytest.skip("this tokenizer does not know these characters")
    assert "\ufffd" not in "".join(parts)


def test_bytes_that_are_no_character_do_not_hold_the_text_back(both):
    byte = next((token for token in ("<0xFF>", "ÿ") if both.reference.convert_tokens_to_ids(token) is not None), None)
    token = both.reference.convert_tokens_to_ids(byte)
    if token == both.reference.unk_token_id:
        pytest.skip("this tokenizer has no bytes")
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
