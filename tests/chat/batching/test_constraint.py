"""Response formats from strangers: their limits of size and time, and what their refusals say."""

import time

import pytest

from steps.chat.api.response_format import JsonFormat, RegexFormat
from steps.chat.batching.constraint import Constraints
from steps.chat.errors import ModelError
from tests.checkout import TINY

pytestmark = pytest.mark.unit
NESTED = RegexFormat("(((a{100}){100}){100}){100}")


@pytest.fixture(scope="module")
def constraints() -> Constraints:
    return Constraints(TINY, 768, [2])


@pytest.mark.parametrize(
    "response_format",
    [
        RegexFormat("(secret"),
        JsonFormat({"type": "secret"}),
        JsonFormat({"$ref": "#/secret"}),
    ],
)
def test_a_format_that_cannot_be_compiled_is_refused_without_repeating_it(constraints, response_format):
    with pytest.raises(ModelError, match="response_format: the (schema|pattern) is not supported") as caught:
        constraints.compile(response_format)
    assert "secret" not in caught.value.message and len(caught.value.message) < 200
    assert caught.value.param == "response_format"


@pytest.mark.parametrize(
    "pattern", ["(a|a)*" * 600, "(x+x+)+y" * 100, NESTED.pattern, r"[\s\S]*(a[\s\S]{0,500}){0,100}", "[0-9]{3000}"]
)
def test_no_pattern_holds_the_caller_for_long(constraints, pattern):
    started = time.monotonic()
    try:
        constraint = constraints.compile(RegexFormat(pattern))
        constraint.allowed(768)
    except ModelError as error:
        assert error.param == "response_format"
    assert time.monotonic() - started < 10


def test_compiling_ends_at_its_deadline():
    constraints = Constraints(TINY, 768, [2], seconds=0.05)
    with pytest.raises(ModelError, match="it takes longer than 0.05 s to compile"):
        constraints.compile(NESTED)


def test_the_choices_of_a_request_share_what_was_compiled_and_not_their_state(constraints):
    response_format = RegexFormat("ab|cd")
    first, second = constraints.compile(response_format), constraints.compile(response_format)
    tokenizer = constraints._tokenizer
    first.accept(tokenizer.tokenize_str("a")[0])
    assert first.allowed(768).tolist() != second.allowed(768).tolist()
