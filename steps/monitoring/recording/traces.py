"""Read traces: those that `serve` left of its requests, and those that an evaluation left of its answers.

What is read has no secrets and no addresses from here on: `serve` took them out, and they are taken out once more.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from steps.monitoring.served import Served
from steps.serving.redaction import redact_value
from steps.serving.traces import ANSWER_TOKENS, FINISH_REASONS, FIRST_TOKEN_MS, ROUTE, STATUS, TOTAL_MS

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Trace

_PAGE = 200  # traces that are read at once
# Requests for answers. Others, such as for counts of tokens, are not compared.
_ROUTES: tuple[str, ...] = ("/v1/chat/completions", "/chat/completions", "/v1/completions", "/completions")
_ROUTES += ("/v1/responses", "/v1/messages", "/invocations")


@dataclass(frozen=True)
class Search:
    """Which traces are wanted."""

    experiment_id: str
    filter: str
    start_ms: int
    end_ms: int
    limit: int


@dataclass(frozen=True)
class Found:
    """Requests in the order of their time."""

    requests: tuple[Served, ...]
    left_out: bool  # whether there are older requests than the limit allows


def read_requests(client: "MlflowClient", search: Search, progress: Callable[[], object]) -> Found:
    """Return the latest requests of a period.

    Args:
        progress: called for each trace.
    """
    period = f"trace.timestamp_ms >= {search.start_ms} AND trace.timestamp_ms <= {search.end_ms}"
    requests: list[Served] = []
    for trace in _traces(client, search.experiment_id, filter_string=f"{search.filter} AND {period}"):
        progress()
        if trace.info.tags.get(ROUTE) not in _ROUTES or not trace.data.spans:
            continue
        if len(requests) == search.limit:
            return Found(tuple(reversed(requests)), left_out=True)
        requests.append(_served(trace))
    return Found(tuple(reversed(requests)), left_out=False)


def read_answers(
    client: "MlflowClient", run_id: str, limit: int, max_tokens: int, progress: Callable[[], object]
) -> tuple[Served, ...]:
    """Return the answers of an evaluation to its questions, at most `limit`.

    Args:
        run_id: the run in which the model was asked.
        max_tokens: of an answer. One that is as long was cut.
        progress: called for each trace.
    """
    experiment_id = client.get_run(run_id).info.experiment_id
    answers: list[Served] = []
    for trace in _traces(client, experiment_id, run_id=run_id):
        progress()
        if trace.data.spans:
            answers.append(_answer(trace, max_tokens))
        if len(answers) == limit:
            break
    return tuple(answers)


def _traces(client: "MlflowClient", experiment_id: str, **which: str) -> "Iterator[Trace]":
    """Yield traces page by page, the latest first."""
    token = None
    while True:
        page = client.search_traces(
            locations=[experiment_id],
            order_by=["timestamp_ms DESC"],
            max_results=_PAGE,
            page_token=token,
            **which,  # type: ignore[arg-type]  # all of them are texts
        )
        yield from page
        token = page.token
        if not token:
            return


def _served(trace: "Trace") -> Served:
    span, usage = trace.data.spans[0], trace.info.token_usage or {}
    body, outputs = span.inputs, span.outputs if isinstance(span.outputs, dict) else {}
    status = trace.info.tags.get(STATUS, "")
    return Served(
        trace_id=trace.info.trace_id,
        time_ms=trace.info.request_time,
        status=int(status) if status.isdecimal() else 0,
        body=redact_value(body) if isinstance(body, dict) else {},
        texts=tuple(redact_value(text) for text in outputs.get("texts", ())),
        prompt_tokens=usage.get("input_tokens"),
        answer_tokens=tuple(span.attributes.get(ANSWER_TOKENS) or ()),
        finish_reasons=tuple(span.attributes.get(FINISH_REASONS) or ()),
        first_token_ms=span.attributes.get(FIRST_TOKEN_MS),
        total_ms=span.attributes.get(TOTAL_MS),
    )


def _answer(trace: "Trace", max_tokens: int) -> Served:
    """Return an answer of an evaluation as if it had been served."""
    span, usage = trace.data.spans[0], trace.info.token_usage or {}
    failed = trace.info.state.value == "ERROR"
    inputs: Any = span.inputs
    tokens = usage.get("output_tokens")
    return Served(
        trace_id=trace.info.trace_id,
        time_ms=trace.info.request_time,
        status=500 if failed else 200,
        body=redact_value(inputs) if isinstance(inputs, dict) else {},
        texts=() if failed else (redact_value(str(span.outputs or "")),),
        prompt_tokens=usage.get("input_tokens"),
        answer_tokens=() if tokens is None else (tokens,),
        finish_reasons=("length",) if tokens is not None and tokens >= max_tokens else ("stop",),
    )
