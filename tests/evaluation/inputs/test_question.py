"""What makes an answer wrong, by kind of match."""

import pytest

from steps.evaluation.inputs.question import Question

pytestmark = pytest.mark.unit

PERSON = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}


def question(kind: str, expected, **more) -> Question:
    return Question([{"role": "user", "content": "?"}], expected, kind, **more)


@pytest.mark.parametrize(
    ("question", "answer", "mistake"),
    [
        (question("exact", "Paris"), " Paris\n", ""),
        (question("exact", "Paris"), "paris", "expected 'Paris'"),
        (question("contains", "paris"), "It is PARIS.", ""),
        (question("contains", "Paris"), "Rome", "'Paris' is not in it"),
        (question("regex", r"\b4[0-9]\b"), "about 42 of them", ""),
        (question("regex", r"^\d+$"), "42 of them", "is not found"),
        (question("choice", "B", choices=("A", "B")), "B) because A is wrong", ""),
        (question("choice", "B", choices=("A", "B")), "The answer is A, not B", "chose 'A', expected 'B'"),
        (question("choice", "B", choices=("A", "B")), "Both", "none of A, B is in it"),
        (question("choice", "New York", choices=("New", "New York")), "New York", ""),
        (question("numeric", 1234), "It is 1,234", ""),
        (question("numeric", 3.14, tolerance=0.01), "pi is 3.1416 or so", ""),
        (question("numeric", 3.14), "3.1416", "3.1416, expected 3.14"),
        (question("numeric", 7), "from 3 to 7", ""),
        (question("numeric", -2), "-2", ""),
        (question("numeric", 7), "seven", "no number"),
        (question("json_schema", PERSON), '{"age": 7}', ""),
        (question("json_schema", PERSON), '```json\n{"age": 7}\n```', ""),
        (question("json_schema", PERSON), '{"age": "7"}', "$.age: '7' is not of type 'integer'"),
        (question("json_schema", PERSON), "age: 7", "not JSON"),
    ],
)
def test_each_kind_of_match(question, answer, mistake):
    reason = question.mistake(answer)
    assert mistake in reason
    assert bool(reason) == bool(mistake)


def test_the_expected_answer_is_shown_as_text():
    assert question("exact", "Zürich").expected_text == "Zürich"
    assert question("numeric", 7).expected_text == "7"
    assert question("json_schema", {"title": "Zürich"}).expected_text == '{"title": "Zürich"}'
