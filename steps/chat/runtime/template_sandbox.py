"""Jinja as transformers configures it for chat templates, with limits for templates that allocate without end.

The sandbox's settings, filters and functions are those of transformers 4.57 (utils/chat_template_utils.py). Of the
limits, a template that makes a prompt notices nothing: they count characters of the strings that the template builds.
"""

import functools
import json
import re
import threading
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

import jinja2
import jinja2.compiler
import jinja2.ext
import jinja2.filters
import jinja2.nodes
import jinja2.parser
import jinja2.utils
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

LARGEST = 8 << 20  # characters of one string, items of one list, or the bits of one number, that a template may make
TOTAL = 256 << 20  # characters of all strings that one rendering may make
_SIZED_METHODS = frozenset({"ljust", "rjust", "center", "zfill", "expandtabs", "to_bytes"})
_WIDTHS = re.compile(r"%[-+ #0]*(\d+)?(?:\.(\d+))?|:[^{}]*?(\d+)(?:\.(\d+))?[^{}]*\}")  # in "%9d" and in "{:9.3f}"
_WIDTH_BY_VALUE = re.compile(r"%[-+ #0]*\*|\.\*|:[^{}]*\{")  # "%*d" and "{:{}}" take widths from the values
_SIZED_FILTERS = ("center", "indent", "wordwrap", "batch", "slice", "round", "truncate", "format", "replace", "join")


class TemplateLimitError(Exception):
    """A template makes more than it may."""


class _Budget(threading.local):
    """Characters that the present rendering of this thread may still make."""

    left = TOTAL

    def take(self, count: int) -> None:
        if count > LARGEST:
            raise TemplateLimitError(f"it makes a value of more than {LARGEST:,} characters, items or bits")
        self.left -= count
        if self.left < 0:
            raise TemplateLimitError(f"it makes more than {TOTAL:,} characters")


_budget = _Budget()


def new_budget() -> None:
    """Begin a rendering in this thread."""
    _budget.left = TOTAL


class _GenerationTag(jinja2.ext.Extension):
    """The tag {% generation %}, which marks the assistant's words for training. Its body is rendered as it is."""

    tags = {"generation"}  # noqa: RUF012  jinja2 declares it as an attribute of the instance

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

    def _render(self, caller: Callable[[], str]) -> str:
        return caller()


class _CodeGenerator(jinja2.compiler.CodeGenerator):
    """Compiles `a ~ b` to a function that counts."""

    def visit_Concat(self, node: jinja2.nodes.Concat, frame: Any) -> None:  # noqa: N802  the name is jinja2's
        self.write("environment.concat(str(part) for part in (")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox of chat templates."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})
    code_generator_class = _CodeGenerator

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, jinja2.ext.loopcontrols])
        for name in _SIZED_FILTERS:
            self.filters[name] = _limited(self.filters[name])
        self.filters["tojson"] = _to_json
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now
        self.globals["lipsum"] = _limited(jinja2.utils.generate_lorem_ipsum)

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        """Return the parts as one string. Jinja calls it for the prompt, for macros and for blocks."""
        counted: list[str] = []
        for part in parts:
            _budget.take(len(part))
            counted.append(part)
        return "".join(counted)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Return the result of an operator. Refuse it if it is too large."""
        if operator == "+":
            if hasattr(left, "__len__") and hasattr(right, "__len__"):
                _budget.take(len(left) + len(right))
        elif operator == "*":
            for value, times in ((left, right), (right, left)):
                if hasattr(value, "__len__") and isinstance(times, int):
                    _budget.take(len(value) * max(times, 0))
            if isinstance(left, int) and isinstance(right, int):
                _budget.take(left.bit_length() + right.bit_length())
        elif operator == "**":
            if isinstance(left, int) and isinstance(right, int):
                _budget.take(left.bit_length() * max(right, 0))
        elif isinstance(left, str):
            _check_numbers(right if isinstance(right, tuple) else (right,), left)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: B902, N805
        """Call a function or a method. Refuse large numbers where they are sizes."""
        name = getattr(__obj, "__name__", "")
        if name in _SIZED_METHODS:
            _check_numbers((*args, *kwargs.values()))
        elif name in ("format", "format_map"):  # jinja2 wraps both methods of a string
            pattern = getattr(getattr(__obj, "__wrapped__", None), "__self__", None)
            values = args[0].values() if name == "format_map" and args and isinstance(args[0], dict) else args
            _check_numbers((*values, *kwargs.values()), pattern if isinstance(pattern, str) else None)
        elif name in ("replace", "join"):
            _check_growth(name, getattr(__obj, "__self__", None), args)
        return super().call(__context, __obj, *args, **kwargs)


def _check_numbers(values: Iterable[Any], pattern: str | None = None) -> None:
    """Raise TemplateLimitError if a value is a large number.

    Args:
        pattern: a format string. Then only the widths count, and the values that it takes as widths.
    """
    numbers = []
    if pattern is None or _WIDTH_BY_VALUE.search(pattern):
        numbers = [value for value in values if isinstance(value, int)]
    if pattern is not None:
        numbers += [int(digits[:12]) for match in _WIDTHS.finditer(pattern) for digits in match.groups() if digits]
    if any(number > LARGEST for number in numbers):
        _budget.take(max(numbers))


def _check_growth(name: str, value: Any, args: tuple[Any, ...]) -> None:
    """Count what str.replace and str.join would make."""
    if not isinstance(value, str):
        return
    if name == "replace" and len(args) >= 2 and all(isinstance(arg, str) for arg in args[:2]):
        _budget.take(len(value) + value.count(args[0]) * max(0, len(args[1]) - len(args[0])))
    elif name == "join" and args and isinstance(args[0], list | tuple):
        _budget.take(len(value) * len(args[0]) + sum(len(item) for item in args[0] if isinstance(item, str)))


def _limited(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that refuses large numbers, and whose result counts."""

    @functools.wraps(function)  # jinja2 marks a filter that takes its environment by an attribute
    def limited(*args: Any, **kwargs: Any) -> Any:
        pattern = str(args[0]) if args and function is jinja2.filters.do_format else None
        _check_numbers((*args, *kwargs.values()), pattern)
        if function is jinja2.filters.do_replace:
            _check_growth("replace", str(args[1]), args[2:])
        result = function(*args, **kwargs)
        _budget.take(len(result) if isinstance(result, str) else 0)
        return result

    return limited


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Return a value as JSON. Jinja's own filter escapes HTML characters."""
    if isinstance(value, Undefined):
        raise TypeError("Object of type Undefined is not JSON serializable")
    _budget.take(_expanded_size(value, {}))
    _check_numbers((indent,))
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    _budget.take(len(text))
    return text


def _expanded_size(value: Any, known: dict[int, int]) -> int:
    """Return about how many characters a value has as JSON. A list that occurs many times counts each time."""
    if isinstance(value, str):
        return len(value)
    if not isinstance(value, dict | list | tuple):
        return 4
    if id(value) not in known:
        known[id(value)] = 2  # a list that holds itself is json.dumps' error
        items = value.values() if isinstance(value, dict) else value
        known[id(value)] = 2 + sum(_expanded_size(item, known) for item in items)
    return known[id(value)]


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(format_: str) -> str:
    return datetime.now().strftime(format_)
