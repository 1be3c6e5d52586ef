"""Reading the text that fidelity is measured on."""

import json
from pathlib import Path

import pytest

from steps.common.errors import StepError
from steps.evaluation.inputs.scored_text import Conversation, read_scored_text

pytestmark = pytest.mark.unit

MESSAGES = [{"role": "user", "content": "?"}]
EXPECTED = {"messages": MESSAGES, "expected": "b"}


def write(folder: Path, *rows) -> Path:
    path = folder / "text.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def test_a_plain_text_is_one_document(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    text = read_scored_text(tmp_path / "a.txt")
    assert text.documents == ("one\n\ntwo\n",)
    assert text.conversations == ()


def test_json_lines_are_documents_and_conversations(tmp_path):
    answered = {"messages": [*MESSAGES, {"role": "assistant", "content": "yes"}]}
    text = read_scored_text(write(tmp_path, {"text": "one"}, EXPECTED, answered))
    assert text.documents == ("one",)
    assert text.conversations == (Conversation(MESSAGES, "b"), Conversation(MESSAGES, "yes"))


@pytest.mark.parametrize(
    ("row", "message"),
    [({"text": ""}, "text is ''"), ({"messages": MESSAGES}, "no answer to predict"), ("{", "not JSON")],
)
def test_a_wrong_line_is_named(tmp_path, row, message):
    with pytest.raises(StepError, match=rf"text .*line 1: {message}"):
        read_scored_text(write(tmp_path, row))


def test_an_empty_text_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text(" \n")
    with pytest.raises(StepError, match="is empty"):
        read_scored_text(tmp_path / "a.txt")
    with pytest.raises(StepError, match="is empty"):
        read_scored_text(write(tmp_path, "", ""))
