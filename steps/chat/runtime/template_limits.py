"""Limits for what a chat template makes, so that no template allocates without end.

Invariant: nothing that a template makes is larger than LARGEST when it is written out, and no function is called whose
result would be. A list that occurs many times counts each time. So this template is stopped in the 22nd turn, although
its list has only two items:

    {% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}

The deadline depends on the invariant. Python cannot interrupt one call of a C function, such as `str` of a list. With
the invariant, each such call ends within about a second.
"""

import json
import re
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

LARGEST = 8 << 20  # characters that a value may have when it is written out
TOTAL = 256 << 20  # characters of all values that one rendering may make
LARGEST_NUMBER = 1 << 16  # bits of an integer
_TEXTS = (str, bytes)
_CONTAINERS: tuple[type[Collection[Any]], ...] = (
    list,
    tuple,
    dict,
    set,
    frozenset,
    type({}.items()),
    type({}.keys()),
    type({}.values()),
)
_LONGEST_INDENT = 16  # characters of JSON's indent and separators
_SIZES = frozenset({"ljust", "rjust", "center", "zfill", "to_bytes", "batch", "slice", "round", "truncate"})
_WIDTHS = re.compile(r"%[-+ #0]*(\d+)?(?:\.(\d+))?|:[^{}]*?(\d+)(?:\.(\d+))?[^{}]*\}")  # in "%9d" and in "{:9.3f}"
_WIDTH_BY_VALUE = re.compile(r"%[-+ #0]*\*|\.\*|:[^{}]*\{")  # "%*d" and "{:{}}" take widths from the values


class TemplateLimitError(Exception):
    """A template makes more than it may."""


class _Budget(threading.local):
    """What the present rendering of this thread may still make, and the sizes of the values that it has made."""

    left = TOTAL

    def __init__(self) -> None:
        # id -> the value and its size. The value is kept, so that no other value gets its id.
        self.sizes: dict[int, tuple[Any, int]] = {}


_budget = _Budget()


def within_limits(render: Callable[[], str]) -> str:
    """Return what a rendering returns. It has the whole budget of this thread."""
    _budget.left = TOTAL
    _budget.sizes = {}
    try:
        return render()
    finally:
        _budget.sizes = {}


def take(count: int) -> None:
    """Count the characters of a value.

    Raises:
        TemplateLimitError: the value is too large, or all values together are.
    """
    if count > LARGEST:
        raise TemplateLimitError(f"it makes a value of more than {LARGEST:,} characters")
    _budget.left -= count
    if _budget.left < 0:
        raise TemplateLimitError(f"it makes more than {TOTAL:,} characters")


def check_size(size: int) -> None:
    """Raise TemplateLimitError if a value of this size is too large. It does not count as made."""
    if size > LARGEST:
        take(size)


def check_number(bits: int) -> None:
    """Raise TemplateLimitError if an integer of this many bits is too large."""
    if bits > LARGEST_NUMBER:
        raise TemplateLimitError(f"it makes a number of more than {LARGEST_NUMBER:,} bits")


def size_of(value: Any) -> int:
    """Return about how many characters a value has when it is written out."""
    if isinstance(value, _TEXTS):
        return len(value)
    if isinstance(value, int):
        return 4 + value.bit_length() // 3
    if not isinstance(value, _CONTAINERS):
        return 32
    if known := _budget.sizes.get(id(value)):
        return known[1]
    size = 2 + sum(2 + size_of(item) for item in value)
    if isinstance(value, dict):
        size += sum(2 + size_of(item) for item in value.values())
    _budget.sizes[id(value)] = value, size
    return size


def bounded(value: Any) -> Any:
    """Return a value that a template has made, if it is not too large. A generator is checked while it is read.

    Raises:
        TemplateLimitError: it is too large.
    """
    if isinstance(value, int):
        check_number(value.bit_length())
    elif isinstance(value, _TEXTS):
        take(len(value))
    elif isinstance(value, _CONTAINERS):
        check_size(size_of(value))
        take(8 * len(value))  # bytes of the list itself
    elif isinstance(value, Iterator):
        return map(bounded, value)
    return value


def check_call(name: str, subject: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Check a call of a filter, or of a method of a string, before it is made.

    Args:
        name: of the function.
        subject: what the filter or the method belongs to.
        args: what is in its parentheses.

    Raises:
        TemplateLimitError: an argument is too large, or the result would be.
    """
    values = (*args, *kwargs.values())
    check_size(size_of(subject) + sum(map(size_of, values)))
    if name in _SIZES:
        check_size(max((value for value in values if isinstance(value, int)), default=0))
    if grows := _GROWTHS.get(name):
        check_size(grows(subject, args, values))


def formatted_size(pattern: str, values: Iterable[Any]) -> int:
    """Return at least how many characters a format string makes of its values, each of which may occur many times."""
    values = [*values]
    if _WIDTH_BY_VALUE.search(pattern):
        check_size(max((abs(value) for value in values if isinstance(value, int)), default=0))
    widths = [int(digits[:12]) for match in _WIDTHS.finditer(pattern) for digits in match.groups() if digits]
    fields = pattern.count("%") + pattern.count("{")
    return len(pattern) + sum(widths) + fields * max(map(size_of, values), default=0)


def replaced_size(text: str, old: str, new: str) -> int:
    """Return how many characters a text has after a replacement."""
    return len(text) + text.count(old) * max(0, len(new) - len(old))


def joined_size(separator: str, items: Iterable[Any]) -> int:
    """Return how many characters items have when they are joined."""
    items = [*items]
    return len(separator) * len(items) + sum(map(size_of, items))


def _replaced(subject: Any, args: tuple[Any, ...], values: tuple[Any, ...]) -> int:
    old, new = (str(value) for value in (*values, "", "")[:2])
    return replaced_size(str(subject), old, new)


def _longest(values: Iterable[Any]) -> int:
    return max((value if isinstance(value, int) else size_of(value) for value in values), default=0)


def _multiplied(subject: Any, args: tuple[Any, ...], values: tuple[Any, ...]) -> int:
    """Return the size if each character of the subject becomes the longest text among the values."""
    strings = [value for value in values if isinstance(value, str | dict)]
    return size_of(subject) * max(1, _longest(strings))


# What each function makes at most: (subject, positional arguments, all arguments) -> characters.
_GROWTHS: dict[str, Callable[[Any, tuple[Any, ...], tuple[Any, ...]], int]] = {
    "center": lambda subject, args, values: _longest(values),
    "expandtabs": lambda subject, args, values: (subject.count("\t") + 1) * max(8, _longest(values)),
    "format": lambda subject, args, values: formatted_size(str(subject), values),
    "format_map": lambda subject, args, values: formatted_size(str(subject), values[0].values()),
    "pprint": lambda subject, args, values: 64 * size_of(subject),  # it indents each item by its depth
    "indent": lambda subject, args, values: (len(str(subject).splitlines()) + 1) * max(4, _longest(values)),
    "replace": _replaced,
    "translate": _multiplied,
    "urlize": _multiplied,
    "wordwrap": _multiplied,
}


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Return a value as JSON."""
    check_size(size_of(value))
    for shape in (indent, *(separators or ())):
        if (shape if isinstance(shape, int) else len(shape or "")) > _LONGEST_INDENT:
            raise TemplateLimitError(f"it makes JSON with an indent of more than {_LONGEST_INDENT} characters")
    if indent is None:  # then JSON is about as long as the value
        return json.dumps(value, ensure_ascii=ensure_ascii, separators=separators, sort_keys=sort_keys)
    encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    return concat(encoder.iterencode(value))


def concat(parts: Iterable[str]) -> str:
    """Return the parts as one string."""
    counted: list[str] = []
    size = 0
    for part in parts:
        size += len(part)
        if size > LARGEST:
            take(size)
        counted.append(part)
    take(size)
    return "".join(counted)
