"""Jinja as transformers configures it for chat templates, with the limits of template_limits.py.

The sandbox's settings, filters and functions are those of transformers 4.57 (utils/chat_template_utils.py). A template
that makes a prompt does not notice the limits.

Where a value can come from, and where it is checked:

    [a, b]  (a, b)  {a: b}     _CodeGenerator, where the items are not constants
    a + b   a * b   a % b      call_binop, before the operation
    f(a)    a.f(b)             call, before and after it
    a | f(b)                   _checked, before and after it
    a ~ b   the prompt         concat, while it is joined
"""

import functools
from collections.abc import Callable
from datetime import datetime
from typing import Any

import jinja2
import jinja2.compiler
import jinja2.ext
import jinja2.filters
import jinja2.nodes
import jinja2.parser
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from . import template_limits as limits


class _GenerationTag(jinja2.ext.Extension):
    """The tag {% generation %}, which marks the assistant's words for training. Its body is rendered as it is."""

    tags = {"generation"}  # noqa: RUF012  jinja2 declares it as an attribute of the instance

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

    def _render(self, caller: Callable[[], str]) -> str:
        return caller()


class _Namespace(Namespace):
    """Jinja's namespace. Written out it does not show its values: they can change, so their size cannot be known."""

    def __repr__(self) -> str:
        return "<Namespace>"


class _CodeGenerator(jinja2.compiler.CodeGenerator):
    """Compiles expressions that make values so that the values are checked.

    It computes nothing while it compiles: there is no deadline then.
    """

    def visit_Concat(self, node: jinja2.nodes.Concat, frame: Any) -> None:  # noqa: N802  the name is jinja2's
        self.write("environment.concat(str(part) for part in (")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def visit_List(self, node: jinja2.nodes.List, frame: Any) -> None:  # noqa: N802
        self._write_bounded(super().visit_List, node, frame, node.items)

    def visit_Tuple(self, node: jinja2.nodes.Tuple, frame: Any) -> None:  # noqa: N802
        self._write_bounded(super().visit_Tuple, node, frame, node.items if node.ctx == "load" else [])

    def visit_Dict(self, node: jinja2.nodes.Dict, frame: Any) -> None:  # noqa: N802
        self._write_bounded(
            super().visit_Dict, node, frame, [part for item in node.items for part in vars(item).values()]
        )

    def _write_bounded(self, visit: Callable[..., None], node: Any, frame: Any, items: list[Any]) -> None:
        made_of_values = any(isinstance(item, jinja2.nodes.Expr) and not _is_constant(item) for item in items)
        if made_of_values:
            self.write("environment.bounded(")
        visit(node, frame)
        if made_of_values:
            self.write(")")

    def _output_child_to_const(self, node: Any, frame: Any, finalize: Any) -> str:
        if not isinstance(node, jinja2.nodes.Const | jinja2.nodes.TemplateData):
            raise jinja2.nodes.Impossible
        return super()._output_child_to_const(node, frame, finalize)


def _is_constant(node: jinja2.nodes.Expr) -> bool:
    return isinstance(node, jinja2.nodes.Const)


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox of chat templates."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})
    code_generator_class = _CodeGenerator
    concat = staticmethod(limits.concat)  # Jinja calls it for the prompt, for macros and for blocks
    bounded = staticmethod(limits.bounded)

    def __init__(self) -> None:
        extensions = [_GenerationTag, jinja2.ext.loopcontrols]
        super().__init__(trim_blocks=True, lstrip_blocks=True, optimized=False, extensions=extensions)
        self.filters["tojson"] = _to_json
        self.filters["join"] = _join
        self.filters["sum"] = _sum
        for name, function in self.filters.items():
            self.filters[name] = _checked(name, function)
        self.globals["namespace"] = _Namespace
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Return the result of an operator. Refuse it if it is too large."""
        if type(left) is str and type(right) is str and operator == "+":  # the most frequent case
            limits.take(len(left) + len(right))
            return left + right
        if operator == "%" and isinstance(left, str):
            values = right.values() if isinstance(right, dict) else right if isinstance(right, tuple) else (right,)
            limits.check_size(limits.formatted_size(left, values))
        elif operator == "+" and not isinstance(left, int | float):
            limits.check_size(limits.size_of(left) + limits.size_of(right))
        elif operator == "*":
            for value, times in ((left, right), (right, left)):
                if isinstance(times, int) and not isinstance(value, int | float):
                    limits.check_size(max(limits.size_of(value), 8) * times)
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            limits.check_number(left.bit_length() * right)
        return limits.bounded(super().call_binop(context, operator, left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: B902, N805
        """Call a function or a method. Refuse what would be too large."""
        method = getattr(__obj, "__wrapped__", __obj)  # jinja2 wraps two methods of a string, format and format_map
        subject = getattr(method, "__self__", None)
        name = __obj.__name__ if isinstance(subject, str | int) else ""  # a template names its macros as it likes
        if name == "join" and args:
            args = ([*args[0]], *args[1:])
            limits.check_size(limits.joined_size(str(subject), args[0]))
        limits.check_call(name, subject if name else "", args, kwargs)
        return limits.bounded(super().call(__context, __obj, *args, **kwargs))


def _checked(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter whose arguments and whose result are checked."""
    hidden = int(hasattr(function, "jinja_pass_arg"))  # Jinja's own first argument

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        subject, *others = args[hidden:] or ("",)
        limits.check_call(name, subject, tuple(others), kwargs)
        return limits.bounded(function(*args, **kwargs))

    return checked


@jinja2.pass_eval_context
def _join(eval_ctx: jinja2.nodes.EvalContext, value: Any, d: Any = "", attribute: str | int | None = None) -> str:
    """Join items with Jinja's filter, if the result is not too large."""
    if attribute is not None:
        value = map(jinja2.filters.make_attrgetter(eval_ctx.environment, attribute), value)
    items = [*value]
    limits.check_size(limits.joined_size(str(d), items))
    return jinja2.filters.sync_do_join(eval_ctx, items, d)


@jinja2.pass_context
def _sum(context: Context, iterable: Any, attribute: str | int | None = None, start: Any = 0) -> Any:
    """Add items up, as Jinja's filter does. Each addition is checked."""
    environment = context.environment
    assert isinstance(environment, TemplateEnvironment)  # it is the sandbox that has this filter
    if attribute is not None:
        iterable = map(jinja2.filters.make_attrgetter(environment, attribute), iterable)
    if isinstance(start, str):
        raise TypeError("sum() can't sum strings [use ''.join(seq) instead]")
    for item in iterable:
        start = environment.call_binop(context, "+", start, item)
    return start


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
    return limits.to_json(value, ensure_ascii, indent, separators, sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(format_: str) -> str:
    return datetime.now().strftime(format_)
