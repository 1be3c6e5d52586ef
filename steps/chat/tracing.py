"""An MLflow trace of each request, where the model config asks for it."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .batching.answer import Completion

Record = Callable[[Any, Sequence["Completion"]], None]


@contextlib.contextmanager
def traced(on: bool, model: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[Record]:
    """A span around a call, an error in it included; nothing at all where it is off.

    Yields:
        What records the answers. The attributes are MLflow's own for model and token usage, so that its UI shows them,
        and milliseconds and tokens of the engine: one number where there is one answer, else a list in their order.
    """
    if not on:
        yield lambda outputs, completions: None
        return
    import mlflow
    from mlflow.entities import SpanType
    from mlflow.tracing.constant import SpanAttributeKey

    # Not the context manager: a stream may be closed by another thread than it was begun in.
    parent = mlflow.get_current_active_span()
    span = mlflow.start_span_no_context(name="phi", span_type=SpanType.CHAT_MODEL, parent_span=parent)
    shown = [{name: value for name, value in row.items() if value is not None} for row in rows]
    span.set_inputs(shown[0] if len(shown) == 1 else shown)
    span.set_attribute(SpanAttributeKey.MODEL, model)

    def record(outputs: Sequence[Any], completions: Sequence["Completion"]) -> None:
        span.set_outputs(outputs[0] if len(outputs) == 1 else outputs)
        if not completions:
            return
        prompt = sum(completion.prompt_tokens for completion in completions)
        written = sum(completion.completion_tokens for completion in completions)
        reused = sum(completion.reused_tokens for completion in completions)
        usage = {"input_tokens": prompt, "output_tokens": written, "total_tokens": prompt + written}
        span.set_attribute(SpanAttributeKey.CHAT_USAGE, usage | {"cache_read_input_tokens": reused})
        figures = {
            "time_to_first_token_ms": [1e3 * completion.first_token_s for completion in completions],
            "queue_ms": [1e3 * completion.queued_s for completion in completions],
            "total_ms": [1e3 * completion.total_s for completion in completions],
            "reused_tokens": [completion.reused_tokens for completion in completions],
        }
        for name, values in figures.items():
            span.set_attribute(name, values[0] if len(values) == 1 else values)

    try:
        yield record
    except GeneratorExit:  # the caller of a stream has heard enough
        span.set_attribute("cancelled", True)
        span.end()
        raise
    except BaseException as error:
        span.record_exception(error)
        span.end(status="ERROR")
        raise
    span.end()
