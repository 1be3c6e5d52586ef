"""Figures and text as a report shows them."""

import html
import math
from typing import Any

_LONGEST = 2_000  # characters of an answer or a question on the page


def percent(value: float) -> str:
    """A share as a percentage, small ones in three digits."""
    return f"{100 * value:.1f}%" if abs(value) >= 5e-4 or value == 0 else f"{figure(100 * value)}%"


def figure(value: float) -> str:
    """Three digits, or all of those before the point."""
    if abs(value) >= 1e-4 or value == 0:
        digits = 2 - math.floor(math.log10(abs(value))) if value else 0
        return f"{value:,.{max(0, digits)}f}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def decimals(value: float) -> str:
    """Four, for what is often close to 1."""
    return f"{value:,.4f}"


def p_value(value: float) -> str:
    """The p of a test, in two digits."""
    return f"{value:.2g}" if value >= 1e-4 else figure(value)


def points(share: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{100 * share:+.1f}".replace("-", "\N{MINUS SIGN}")


def count(number: int, thing: str) -> str:
    """3 gates, 1 gate."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def known(value: Any) -> bool:
    """Whether there is a figure to show."""
    return value is not None and math.isfinite(value)


def shorten(text: str) -> str:
    """Its beginning, where it is longer than anybody reads."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} … ({len(text):,} characters in all)"


def inline(text: str) -> str:
    """Text as one cell or line of Markdown."""
    return " ".join(html.escape(text, quote=False).replace("|", "\\|").split())
