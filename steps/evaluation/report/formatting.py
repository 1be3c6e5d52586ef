"""Show figures and text: the one way to print the value of a metric, and the pieces it is made of."""

import html
import math

from steps.evaluation.metrics import Metric
from steps.evaluation.results import Figure

_LONGEST = 2_000  # characters of an answer or a question on the page
_LARGEST_EXPONENT = 700  # e to a larger power is no float


def format_value(metric: Metric, value: float) -> str:
    """Return a value of a metric as every table, page and summary shows it; without the unit."""
    match metric.style:
        case "share":
            return percent(value)
        case "decimals":
            return decimals(value)
        case "exponential":
            return decimals(_exponential(value))
        case "figure":
            return significant(value)


def format_error(metric: Metric, figure: Figure) -> str:
    """Return how sure a figure is: "low to high" of its interval, else "± error"; empty where neither is known."""
    if figure.interval:
        low, high = figure.interval
        return f"{format_value(metric, low)} to {format_value(metric, high)}"
    error = figure.standard_error
    if error is None or figure.value is None:
        return ""
    if metric.style == "exponential":  # the error of exp(x) is exp(x) times the error of x
        error *= _exponential(figure.value)
    return f"± {percent(error) if metric.style == 'share' else significant(error)}"


def _exponential(value: float) -> float:
    return math.exp(min(value, _LARGEST_EXPONENT))


def percent(share: float) -> str:
    """Return a share as a percentage; a small one with three significant digits."""
    return f"{100 * share:.1f}%" if abs(share) >= 5e-4 or share == 0 else f"{significant(100 * share)}%"


def significant(value: float) -> str:
    """Return a number with three significant digits, or with all digits before the point."""
    if abs(value) >= 1e-4 or value == 0:
        digits = 2 - math.floor(math.log10(abs(value))) if value else 0
        return f"{value:,.{max(0, digits)}f}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def decimals(value: float) -> str:
    """Return a number with four decimals, for values that are often close to 1."""
    return f"{value:,.4f}"


def p_value(value: float) -> str:
    """Return the p-value of a test with two digits."""
    return f"{value:.2g}" if value >= 1e-4 else significant(value)


def points(share: float) -> str:
    """Return a difference of shares in percentage points, with its sign."""
    return f"{100 * share:+.1f}".replace("-", "\N{MINUS SIGN}")


def count(number: int, thing: str) -> str:
    """Return a number with its noun, such as "3 gates" or "1 gate"."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def shorten(text: str, longest: int = _LONGEST) -> str:
    """Return the beginning of a text that is too long to read, with its length; any other text as it is."""
    return text if len(text) <= longest else f"{text[:longest]} … ({len(text):,} characters in all)"


def capitalised(text: str) -> str:
    """Return a text with a capital first letter."""
    return text[:1].upper() + text[1:]


def inline(text: str) -> str:
    """Return a text as one cell or one line of Markdown, with markup escaped."""
    return " ".join(html.escape(text, quote=False).replace("|", "\\|").split())
