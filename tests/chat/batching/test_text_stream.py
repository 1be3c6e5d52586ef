"""What is shown of an answer, whatever the tokens are cut like."""

from hypothesis import given
from hypothesis import strategies as st

from steps.chat.batching.text_stream import TextStream


class Pieces:
    """A decoder for which a token is the number of a piece of text."""

    def __init__(self, pieces: list[str]) -> None:
        self._pieces = pieces

    def decode(self, token: int) -> str:
        return self._pieces[token]


def shown(pieces: list[str], stop: list[str], strip: bool = False) -> tuple[list[str], bool]:
    stream, found = TextStream(Pieces(pieces), stop, strip), []
    for token in range(len(pieces)):
        found.append(stream.add(token))
        if stream.stopped:
            break
    found.append(stream.rest())
    assert "".join(found) == stream.shown
    return found, stream.stopped


TEXTS = st.text("ab \n", max_size=6)


@given(st.lists(TEXTS, max_size=8), st.lists(st.text("ab \n", min_size=1, max_size=4), max_size=3))
def test_a_stop_string_is_never_shown_whole_or_in_part(pieces, stop):
    text = "".join(pieces)
    ends = [(text.find(s) + len(s), text.find(s)) for s in stop if s in text]
    found, stopped = shown(pieces, stop)
    assert stopped == bool(ends)
    if not ends:
        assert "".join(found) == text
    else:  # the piece that completes the first stop string ends the answer, where the earliest in it begins
        whole, total = min(ends)[0], 0
        for piece in pieces:
            total += len(piece)
            if total >= whole:
                break
        assert "".join(found) == text[: min(text[:total].find(s) for s in stop if s in text[:total])]


@given(st.lists(TEXTS, max_size=8))
def test_white_space_at_the_beginning_is_dropped_where_asked(pieces):
    assert "".join(shown(pieces, [], strip=True)[0]) == "".join(pieces).lstrip()


def test_text_is_shown_as_soon_as_it_cannot_be_a_stop_string():
    assert shown(["a", "b", "<e", "nd", "x"], ["<end>"])[0] == ["a", "b", "", "", "<endx", ""]
