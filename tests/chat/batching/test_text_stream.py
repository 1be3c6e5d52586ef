"""The text that is shown of an answer, however the tokens cut it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.chat.batching.text_stream import TextStream

pytestmark = pytest.mark.unit


class Pieces:
    """A decoder whose tokens are the numbers of pieces of text."""

    def __init__(self, pieces: list[str]) -> None:
        self._pieces = pieces

    def decode(self, token: int) -> str:
        return self._pieces[token]


def shown(pieces: list[str], stop: list[str], strip: bool = False) -> tuple[list[str], bool]:
    """Return the pieces that are shown, and whether a stop string ended the answer."""
    stream, output = TextStream(Pieces(pieces), stop, strip), []
    for token in range(len(pieces)):
        output.append(stream.add(token))
        if stream.stopped:
            break
    output.append(stream.rest())
    assert "".join(output) == stream.shown
    return output, stream.stopped


TEXTS = st.text("ab \n", max_size=6)


@given(st.lists(TEXTS, max_size=8), st.lists(st.text("ab \n", min_size=1, max_size=4), max_size=3))
def test_a_stop_string_is_never_shown_whole_or_in_part(pieces, stop):
    text = "".join(pieces)
    ends = [(text.find(s) + len(s), text.find(s)) for s in stop if s in text]
    output, stopped = shown(pieces, stop)
    assert stopped == bool(ends)
    if not ends:
        assert "".join(output) == text
    else:  # the piece that completes a stop string ends the answer, before the first stop string in it
        end, total = min(ends)[0], 0
        for piece in pieces:
            total += len(piece)
            if total >= end:
                break
        assert "".join(output) == text[: min(text[:total].find(s) for s in stop if s in text[:total])]


@given(st.lists(TEXTS, max_size=8))
def test_strip_drops_white_space_at_the_beginning(pieces):
    assert "".join(shown(pieces, [], strip=True)[0]) == "".join(pieces).lstrip()


def test_text_is_shown_as_soon_as_it_cannot_be_a_stop_string():
    assert shown(["a", "b", "<e", "nd", "x"], ["<end>"])[0] == ["a", "b", "", "", "<endx", ""]
