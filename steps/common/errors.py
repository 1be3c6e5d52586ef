"""Errors that the user can correct, each in one line."""

import difflib
from collections.abc import Iterable


class StepError(Exception):
    """An error that the user can correct. Its one line says what happened, what was expected, and what to do.

    The entry point prints the line, marks the run FAILED and exits with 1. Every other exception is a defect of this
    project or of a library, and its traceback is logged.
    """


class Rejected(StepError):
    """The step did its work, and its verdict is negative. The run is FAILED, but keeps what it logged."""


def nearest(value: str, valid: Iterable[str]) -> str:
    """Return the end of an error message: the most similar valid name, and all valid names."""
    names = sorted(valid)
    similar = difflib.get_close_matches(value, names, n=1)
    return (f"did you mean {similar[0]!r}? " if similar else "") + "valid: " + ", ".join(names)


def one_of(parameter: str, value: str, valid: Iterable[str]) -> str:
    """Return the value of a parameter if it is valid.

    Raises:
        StepError: the value is not valid; the line has the most similar valid value.
    """
    valid = tuple(valid)
    if value not in valid:
        raise StepError(f"{parameter} is {value!r}; {nearest(value, valid)}")
    return value
