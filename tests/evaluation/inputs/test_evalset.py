"""What counts as right, by table; and what is refused, with its line."""

import json

import pytest

from steps.common.errors import StepError
from steps.evaluation.inputs.evalset import Item, read_evalset, spread
from steps.evaluation.inputs.scored_text import read_text

ASKED = [{"role": "user", "content": "?"}]
PERSON = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}


def item(kind: str, expected, **more) -> Item:
    return Item(ASKED, expected, kind, **more)


@pytest.mark.parametrize(
    ("asked", "answer", "mistake"),
    [
        (item("exact", "Paris"), " Paris\n", ""),
        (item("exact", "Paris"), "paris", "expected 'Paris'"),
        (item("contains", "paris"), "It is PARIS.", ""),
        (item("contains", "Paris"), "Rome", "'Paris' is not in it"),
        (item("regex", r"\b4[0-9]\b"), "about 42 of them", ""),
        (item("regex", r"^\d+$"), "42 of them", "is not found"),
        (item("choice", "B", choices=["A", "B"]), "B) because A is wrong", ""),
        (item("choice", "B", choices=["A", "B"]), "The answer is A, not B", "chose 'A', expected 'B'"),
        (item("choice", "B", choices=["A", "B"]), "Both", "none of A, B is in it"),
        (item("choice", "New York", choices=["New", "New York"]), "New York", ""),
        (item("numeric", 1234), "It is 1,234", ""),
        (item("numeric", 3.14, tolerance=0.01), "pi is 3.1416 or so", ""),
        (item("numeric", 3.14), "3.1416", "3.1416, expected 3.14"),
        (item("numeric", 7), "from 3 to 7", ""),
        (item("numeric", -2), "-2", ""),
        (item("numeric", 7), "seven", "no number"),
        (item("json_schema", PERSON), '{"age": 7}', ""),
        (item("json_schema", PERSON), '```json\n{"age": 7}\n```', ""),
        (item("json_schema", PERSON), '{"age": "7"}', "$.age: '7' is not of type 'integer'"),
        (item("json_schema", PERSON), "age: 7", "not JSON"),
    ],
)
def test_each_kind(asked, answer, mistake):
    found = asked.mistake(answer)
    assert mistake in found
    assert bool(found) == bool(mistake)


def written(tmp_path, *rows) -> object:
    path = tmp_path / "set.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


GOOD = {"messages": ASKED, "expected": "b"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "not JSON"),
        ("[]", "no valid messages"),
        ({"messages": [], "expected": "a"}, "no valid messages"),
        ({"messages": [{"role": "user"}], "expected": "a"}, "no valid messages"),
        ({"messages": [{"role": "human", "content": "a"}], "expected": "a"}, "no valid messages.*system, user"),
        ({"messages": ASKED}, "no expected answer"),
        (GOOD | {"expected": 7}, "no expected answer: it is 7"),
        (GOOD | {"kind": "exakt"}, "kind is 'exakt'; did you mean 'exact'"),
        (GOOD | {"knd": "regex"}, "no field 'knd'; did you mean 'kind'"),
        (GOOD | {"kind": "regex", "expected": "("}, "no regular expression"),
        (GOOD | {"kind": "contains", "expected": ""}, "expected is empty"),
        (GOOD | {"kind": "choice"}, "choices is"),
        (GOOD | {"kind": "choice", "choices": ["a", "c"]}, "none of the choices a, c"),
        (GOOD | {"choices": ["a", "b"]}, "choices belongs to the kind choice"),
        (GOOD | {"kind": "numeric"}, "expected is 'b'; expected a number"),
        (GOOD | {"kind": "numeric", "expected": 1, "tolerance": -1}, "tolerance is -1"),
        (GOOD | {"kind": "json_schema", "expected": {"type": 3}}, "no JSON schema"),
    ],
)
def test_a_bad_line_is_named_by_its_number_and_the_reason(tmp_path, row, message):
    with pytest.raises(StepError, match=rf"line 2: .*{message}"):
        read_evalset(written(tmp_path, GOOD, row))


def test_a_field_of_somebody_elses_is_left_alone(tmp_path):
    assert read_evalset(written(tmp_path, GOOD | {"id": 7}))[0].expected == "b"


def test_an_empty_or_missing_set_is_refused(tmp_path):
    with pytest.raises(StepError, match="is empty"):
        read_evalset(written(tmp_path, "", ""))
    with pytest.raises(StepError, match="No such file"):
        read_evalset(tmp_path / "none.jsonl")


def test_fewer_questions_are_spread_over_the_set():
    items = [item("exact", str(n)) for n in range(10)]
    assert [one.expected for one in spread(items, 4)] == ["0", "2", "5", "7"]
    assert spread(items, 99) == items


def test_a_text_is_plain_or_json_lines(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    assert read_text(tmp_path / "a.txt").documents == ["one\n\ntwo\n"]
    answered = {"messages": [*ASKED, {"role": "assistant", "content": "yes"}]}
    text = read_text(written(tmp_path, {"text": "one"}, GOOD, answered))
    assert text.documents == ["one"]
    assert text.conversations == [{"messages": ASKED, "answer": "b"}, {"messages": ASKED, "answer": "yes"}]


@pytest.mark.parametrize(
    ("row", "message"),
    [({"text": ""}, "text is ''"), ({"messages": ASKED}, "no answer to predict"), ("{", "not JSON")],
)
def test_a_bad_line_of_a_text_is_named(tmp_path, row, message):
    with pytest.raises(StepError, match=rf"text .*line 1: {message}"):
        read_text(written(tmp_path, row))


def test_an_empty_text_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text(" \n")
    with pytest.raises(StepError, match="is empty"):
        read_text(tmp_path / "a.txt")
