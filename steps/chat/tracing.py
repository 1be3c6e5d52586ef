"""Leave an MLflow trace of each request, if the model config asks for it."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.entities import LiveSpan

    from .batching.generation import Completion

Record = Callable[[Sequence[Any], Sequence["Completion"]], None]


@contextlib.contextmanager
def traced(on: bool, model: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[Record]:
    """Record a span around the block, and an error that leaves the block. Do nothing if `on` is False.

    Yields:
        A function that records the responses and their completions.
    """
    if not on:
        yield lambda outputs, completions: None
        return
    span = _start_span(model, rows)
    try:
        yield lambda outputs, completions: _record(span, outputs, completions)
    except GeneratorExit:  # the caller closed the stream
        span.set_attribute("cancelled", True)
        span.end()
        raise
    except BaseException as error:
        span.record_exception(error if isinstance(error, Exception) else repr(error))
        span.end(status="ERROR")
        raise
    span.end()


def _start_span(model: str, rows: Sequence[Mapping[str, Any]]) -> "LiveSpan":
    import mlflow
    from mlflow.entities import SpanType
    from mlflow.tracing.constant import SpanAttributeKey

    # mlflow.start_span keeps the active span in the thread, and another thread may close a stream.
    parent = mlflow.get_current_active_span()
    span = mlflow.start_span_no_context(name="phi", span_type=SpanType.CHAT_MODEL, parent_span=parent)
    inputs = [{name: value for name, value in row.items() if value is not None} for row in rows]
    span.set_inputs(_single_or_list(inputs))
    span.set_attribute(SpanAttributeKey.MODEL, model)
    return span


def _record(span: "LiveSpan", outputs: Sequence[Any], completions: Sequence["Completion"]) -> None:
    """Record the responses, the token usage by MLflow's own attributes, and the engine's times in milliseconds.

    An attribute is a number if there is one completion, and else a list in the order of the completions.
    """
    from mlflow.tracing.constant import SpanAttributeKey

    span.set_outputs(_single_or_list(outputs))
    if not completions:
        return
    prompt = sum(completion.prompt_tokens for completion in completions)
    written = sum(completion.completion_tokens for completion in completions)
    reused = sum(completion.reused_tokens for completion in completions)
    usage = {"input_tokens": prompt, "output_tokens": written, "total_tokens": prompt + written}
    span.set_attribute(SpanAttributeKey.CHAT_USAGE, usage | {"cache_read_input_tokens": reused})
    figures: dict[str, list[float]] = {
        "time_to_first_token_ms": [1e3 * completion.first_token_s for completion in completions],
        "queue_ms": [1e3 * completion.queued_s for completion in completions],
        "total_ms": [1e3 * completion.total_s for completion in completions],
        "reused_tokens": [completion.reused_tokens for completion in completions],
    }
    for name, values in figures.items():
        span.set_attribute(name, _single_or_list(values))


def _single_or_list(values: Sequence[Any]) -> Any:
    return values[0] if len(values) == 1 else values
