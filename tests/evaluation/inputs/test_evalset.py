"""Reading an evaluation set: what is accepted, and what is refused with its line number."""

import json
from pathlib import Path

import pytest

from steps.common.errors import StepError
from steps.evaluation.inputs.evalset import read_evalset, spread
from steps.evaluation.inputs.question import Question

pytestmark = pytest.mark.unit

MESSAGES = [{"role": "user", "content": "?"}]
GOOD = {"messages": MESSAGES, "expected": "b"}


def write(folder: Path, *rows) -> Path:
    path = folder / "set.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "not JSON"),
        ("[]", "no valid messages"),
        ({"messages": [], "expected": "a"}, "no valid messages"),
        ({"messages": [{"role": "user"}], "expected": "a"}, "no valid messages"),
        ({"messages": [{"role": "human", "content": "a"}], "expected": "a"}, "no valid messages.*system, user"),
        ({"messages": MESSAGES}, "no expected answer"),
        (GOOD | {"expected": 7}, "no expected answer: it is 7"),
        (GOOD | {"kind": "exakt"}, "kind is 'exakt'; did you mean 'exact'"),
        (GOOD | {"kind": ["exact"]}, "kind is \\['exact'\\]"),
        (GOOD | {"knd": "regex"}, "no field 'knd'; did you mean 'kind'"),
        (GOOD | {"kind": "regex", "expected": "("}, "not a regular expression"),
        (GOOD | {"kind": "contains", "expected": ""}, "expected is empty"),
        (GOOD | {"kind": "choice"}, "choices is"),
        (GOOD | {"kind": "choice", "choices": ["a", "c"]}, "none of the choices a, c"),
        (GOOD | {"choices": ["a", "b"]}, "choices belongs to the kind choice, and this line has the kind exact"),
        (GOOD | {"kind": "numeric"}, "expected is 'b'; expected a number"),
        (GOOD | {"kind": "numeric", "expected": 1, "tolerance": -1}, "tolerance is -1"),
        (GOOD | {"kind": "json_schema", "expected": {"type": 3}}, "not a JSON schema"),
    ],
)
def test_a_wrong_line_is_named_by_its_number_and_the_reason(tmp_path, row, message):
    with pytest.raises(StepError, match=rf"line 2: .*{message}"):
        read_evalset(write(tmp_path, GOOD, row))


def test_all_fields_of_a_line_are_read(tmp_path):
    choice = GOOD | {"kind": "choice", "choices": ["a", "b"]}
    number = {"messages": MESSAGES, "expected": 7, "kind": "numeric", "tolerance": 0.5}
    assert read_evalset(write(tmp_path, choice, number)) == [
        Question(MESSAGES, "b", "choice", choices=("a", "b")),
        Question(MESSAGES, 7, "numeric", tolerance=0.5),
    ]


def test_a_field_of_the_users_own_is_accepted(tmp_path):
    assert read_evalset(write(tmp_path, GOOD | {"id": 7}))[0].expected == "b"


def test_an_empty_or_missing_set_is_refused(tmp_path):
    with pytest.raises(StepError, match="is empty"):
        read_evalset(write(tmp_path, "", ""))
    with pytest.raises(StepError, match="No such file"):
        read_evalset(tmp_path / "none.jsonl")


def test_fewer_questions_are_spread_over_the_set():
    questions = [Question(MESSAGES, str(number)) for number in range(10)]
    assert [question.expected for question in spread(questions, 4)] == ["0", "2", "5", "7"]
    assert spread(questions, 99) == questions
