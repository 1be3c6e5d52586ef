"""A request and its answer, as a trace has them, and what is observed of it: a value for each quantity."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steps.monitoring.scorers import declines, flaw

GONE = 499  # the status of a client that went away
_BUSY = 429


@dataclass(frozen=True)
class Served:
    """One request and what became of it."""

    trace_id: str
    time_ms: int  # when it came, since 1970
    status: int  # of HTTP
    body: Mapping[str, Any]
    texts: tuple[str, ...] = ()  # of each choice
    prompt_tokens: int | None = None
    answer_tokens: tuple[int, ...] = ()  # of each choice
    finish_reasons: tuple[str, ...] = ()
    first_token_ms: float | None = None  # of the first choice
    total_ms: float | None = None

    @property
    def question(self) -> str:
        """The text of the last message, or the prompt."""
        for name in ("messages", "input", "prompt"):
            if self.body.get(name):
                return _last_text(self.body[name])
        return ""

    @property
    def response_format(self) -> Mapping[str, Any] | None:
        """The format that the request asks for, as OpenAI's chat has it."""
        given = self.body.get("response_format")
        if isinstance(given, dict):
            return given
        text = self.body.get("text")  # of the Responses API, which has the schema one level higher
        form = text.get("format") if isinstance(text, dict) else None
        return {"type": form.get("type"), "json_schema": form} if isinstance(form, dict) else None


@dataclass(frozen=True)
class Observation:
    """What is observed of one request. A quantity that the request does not have is left out."""

    served: Served
    values: dict[str, float]  # by the names of quantities.QUANTITIES
    flaw: str  # what is wrong with the answer; empty for nothing


def observe(served: Served) -> Observation:
    """Return the values of one request. The judge's come later."""
    status = served.status
    failed = status >= 500 or status == _BUSY
    values = {"refused": float(400 <= status < 500 and not failed), "failed": float(failed)}
    if served.prompt_tokens:
        values["prompt_tokens"] = float(served.prompt_tokens)
    if status != 200 or not served.texts:
        return Observation(served, values, "")
    if served.answer_tokens:
        values["answer_tokens"] = sum(served.answer_tokens) / len(served.answer_tokens)
    values |= _times(served)
    is_cut = "length" in served.finish_reasons
    values["cut"] = float(is_cut)
    values["declined"] = float(any(declines(text) for text in served.texts))
    # The format of an answer that was cut must be wrong, and that the answer was cut is told already.
    wanted = None if is_cut else served.response_format
    found = next(filter(None, (flaw(served.question, text, wanted) for text in served.texts)), "")
    if found == "empty" and served.body.get("max_tokens") == 0:  # a request for the likelihood of a prompt
        found = ""
    values["flawed"] = float(bool(found))
    return Observation(served, values, found)


def _times(served: Served) -> dict[str, float]:
    """Return the times of an answer that came token by token. A whole answer has no first token."""
    first, total = served.first_token_ms, served.total_ms
    tokens = served.answer_tokens[0] if served.answer_tokens else 0
    if first is None or total is None or (tokens > 1 and total <= first):
        return {}
    return {"ttft_ms": first} | ({"tpot_ms": (total - first) / (tokens - 1)} if tokens > 1 else {})


def _last_text(value: Any) -> str:
    """Return the last text of messages, of parts of a message, or of prompts."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return _last_text(value.get("content", value.get("text", "")))
    return _last_text(value[-1]) if isinstance(value, list) and value else ""
