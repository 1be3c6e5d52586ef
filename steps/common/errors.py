"""The one exception class for what a person can put right."""

import difflib
from collections.abc import Iterable


class StepError(Exception):
    """Something that the user can mend, in one line: what was given, what is expected, what to do.

    The entry point prints the line, marks the run FAILED and exits with 1. Any other exception is a defect of this
    project or of a library, and keeps its traceback.
    """


class Rejected(StepError):
    """The work is done and recorded, and its verdict is no: the run fails, and keeps what it logged."""


def nearest(given: str, valid: Iterable[str]) -> str:
    """A clause for the end of an error: the nearest valid name if one is near, then all of them."""
    names = sorted(valid)
    close = difflib.get_close_matches(given, names, n=1)
    return (f"did you mean {close[0]!r}? " if close else "") + "valid: " + ", ".join(names)


def one_of(what: str, given: str, valid: Iterable[str]) -> str:
    """`given`, if it is one of the valid values of the parameter `what`.

    Raises:
        StepError: it is not; the line names the nearest.
    """
    valid = tuple(valid)
    if given not in valid:
        raise StepError(f"{what} is {given!r}; {nearest(given, valid)}")
    return given
