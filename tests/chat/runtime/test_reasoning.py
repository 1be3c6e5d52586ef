"""The thought and the answer in a text, however the text is cut into pieces."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.chat.runtime.reasoning import (
    TagDecoder,
    ThoughtParser,
    answer_of,
    has_thoughts,
    is_named_reasoning,
    opens_thought,
    tag_tokens,
)

pytestmark = pytest.mark.unit


def parse(pieces: list[str], opened: bool = False) -> tuple[str, str]:
    """Return the thought and the answer of a text in pieces."""
    parser = ThoughtParser(opened)
    parts = [*map(parser.feed, pieces), parser.end()]
    assert parser.end() == ("", "") and not parser.is_open
    return "".join(thought for thought, _ in parts), "".join(answer for _, answer in parts)


@pytest.mark.parametrize(
    ("text", "thought", "answer"),
    [
        ("<think>\n2 and 2.\n</think>\n\nFour.", "2 and 2.", "\n\nFour."),
        (" \n<think>a</think>b", "a", "b"),
        ("<think></think>b", "", "b"),
        ("<think>\n\n</think>b", "", "b"),
        ("No tags.", "", "No tags."),
        ("", "", ""),
        ("  x", "", "  x"),
        ("<think>never ends", "never ends", ""),
        ("<think>cut in a tag </thi", "cut in a tag </thi", ""),
        ("<thi", "", "<thi"),
        ("<think", "", "<think"),
        ("<thinking>a</thinking>", "", "<thinking>a</thinking>"),
        ("Later <think>a</think>", "", "Later <think>a</think>"),
        ("b </think> c", "", "b </think> c"),
        ("<think>a <think>b</think> c</think> d", "a <think>b", " c</think> d"),
        ("<think>a</think>b<think>c</think>d", "a", "b<think>c</think>d"),
        ("<think><think>a</think>b", "a", "b"),
        ("<think>1 < 2 </ x</think>b", "1 < 2 </ x", "b"),
    ],
)
def test_a_text_is_separated_at_the_first_closing_tag(text, thought, answer):
    assert parse([text]) == (thought, answer)


@pytest.mark.parametrize(
    ("text", "thought", "answer"),
    [
        ("a\n</think>\nb", "a", "\nb"),
        ("</think>b", "", "b"),
        ("no end", "no end", ""),
        ("\n<think>\na</think>b", "a", "b"),
        ("<thinner</think>b", "<thinner", "b"),
    ],
)
def test_after_a_prompt_that_opens_the_thought_the_text_begins_inside_it(text, thought, answer):
    assert parse([text], opened=True) == (thought, answer)


PARTS = st.lists(st.sampled_from(["<think>", "</think>", "<", "</", "think", ">", " ", "\n", "a", "é"]), max_size=12)


@given(PARTS, st.booleans(), st.data())
def test_any_pieces_of_a_text_give_the_same_as_the_whole(parts, opened, data):
    text = "".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert parse(pieces, opened) == parse([text], opened) == parse([*text], opened)


@given(PARTS, st.booleans())
def test_no_text_is_lost_but_tags_and_white_space(parts, opened):
    text = "".join(parts)
    thought, answer = parse([text], opened)
    assert thought == thought.strip() and text.endswith(answer)
    assert thought in text[: len(text) - len(answer)]
    if not opened and not text.lstrip().startswith("<think>"):
        assert (thought, answer) == ("", text)


def test_a_piece_of_thought_is_shown_as_soon_as_it_cannot_be_a_tag():
    parser = ThoughtParser(opened=True)
    pieces = ["one ", "two </", "b ", "</thi", "nk> ", "x"]
    assert [parser.feed(piece) for piece in pieces] == [
        ("one", ""),
        (" two", ""),
        (" </b", ""),
        ("", ""),
        ("", " "),
        ("", "x"),
    ]


def test_text_in_the_token_of_the_closing_tag_is_no_part_of_a_formatted_answer():
    parser = ThoughtParser(opened=True, drops_rest=True)
    assert [parser.feed(piece) for piece in ("a</think>{", "{}")] == [("a", ""), ("", "{}")]


def test_the_answer_of_a_whole_text_is_stripped_only_after_a_thought():
    assert answer_of("<think>a</think>\n\nb", opened=False) == "b"
    assert answer_of(" b", opened=False) == " b"
    assert answer_of("a", opened=True) == ""


def test_a_prompt_opens_a_thought_only_at_its_end():
    assert opens_thought("<|assistant|>\n<think>\n")
    assert not opens_thought("<think>\n\n</think>\n\n") and not opens_thought("<think> it over<|assistant|>")


def write(folder, name: str, content: object) -> None:
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))


def test_a_checkpoint_says_by_its_tokenizer_or_its_template_that_it_has_thoughts(tmp_path):
    assert not has_thoughts(tmp_path), "an empty folder"
    tokens = [{"id": 7, "content": "<think>"}, {"id": 9, "content": "</think>"}]
    write(tmp_path, "tokenizer.json", {"added_tokens": tokens[:1]})
    assert not has_thoughts(tmp_path), "one tag is no pair"
    write(tmp_path, "tokenizer.json", {"added_tokens": tokens})
    assert has_thoughts(tmp_path) and tag_tokens(tmp_path) == {7: "<think>", 9: "</think>"}
    for name, content in (
        ("chat_template.jinja", "{{ '<think>' }}"),
        ("tokenizer_config.json", {"chat_template": "{{ x.split('</think>') }}"}),
        ("tokenizer_config.json", {"chat_template": [{"name": "default", "template": "<think>"}]}),
    ):
        folder = tmp_path / f"{len([*tmp_path.iterdir()])}"
        folder.mkdir()
        write(folder, name, content)
        assert has_thoughts(folder), name


@pytest.mark.parametrize("name", ["microsoft/Phi-4-mini-reasoning", "Phi-4-reasoning-plus", "phi_4_reasoning"])
def test_a_name_says_that_a_model_has_thoughts(name):
    assert is_named_reasoning(name)


@pytest.mark.parametrize("name", ["microsoft/Phi-4-mini-instruct", "reasoning-lab/phi-4", "unreasoningly"])
def test_a_name_without_the_word_says_nothing(name):
    assert not is_named_reasoning(name)


class Skipping:
    """A decoder that leaves special tokens out, and one that does not."""

    def __init__(self, texts: dict[int, str]) -> None:
        self._texts = texts

    def decode(self, token: int) -> str:
        return self._texts.get(token, "")


@pytest.mark.parametrize("texts", [{1: "a"}, {1: "a", 2: "<think>"}])
def test_a_tag_that_is_a_special_token_is_shown_once(texts):
    decoder = TagDecoder(Skipping(texts), {2: "<think>"})
    assert [decoder.decode(token) for token in (2, 1)] == ["<think>", "a"]
