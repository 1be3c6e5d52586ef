"""One request and its answer: hold the model, read the answer in a thread, send it whole or as events, count it.

Whatever ends a request, the end is told once: its answer is cancelled, the model is released, the figures are counted.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from steps.serving.answers import Answer
from steps.serving.context import Context, context_of
from steps.serving.errors import ApiError, of_exception
from steps.serving.jobs import ClientGone, Job, unless_gone
from steps.serving.models import ServedModel
from steps.serving.progress import progress_of
from steps.serving.protocols.fields import renamed
from steps.serving.sse import DONE, EventStream, event, openai_error

GONE = 499  # the status in logs and figures of a client that went away, as nginx writes it


@dataclass(frozen=True)
class Style:
    """How a protocol writes an answer: whole, as events, and as the event of an error.

    `names` has its names of the fields that a chat request names otherwise.
    """

    whole: Callable[[dict[str, Any], ServedModel], Mapping[str, Any]]
    events: Callable[[AsyncIterator[dict[str, Any]], ServedModel], AsyncIterator[bytes]]
    error: Callable[[ApiError], bytes]
    names: Mapping[str, str] = field(default_factory=dict)


def _same(response: dict[str, Any], model: ServedModel) -> Mapping[str, Any]:
    return response | {"model": model.name}


async def _chunk_events(chunks: AsyncIterator[dict[str, Any]], model: ServedModel) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        yield event(chunk | {"model": model.name})
    yield DONE


OPENAI = Style(_same, _chunk_events, openai_error)


async def exchange(
    request: Request, start: Callable[[ServedModel], Answer], stream: bool, style: Style = OPENAI
) -> Response:
    """Answer a request.

    Args:
        start: checks and queues the request. It runs in a thread.
        stream: whether the client wants events.

    Raises:
        ApiError, MlflowException: the request is refused, or its answer failed before the first event.
        ClientGone: the client went away before that.
    """
    context, progress = context_of(request), progress_of(request.scope)
    with contextlib.ExitStack() as stack:
        model = stack.enter_context(admitted(context))
        job = Job(lambda: start(model), stream, context.limits.request_s, context.bell)
        progress.job, progress.model = job, model
        stack.callback(_end, context, job)
        with renamed(style.names):
            first = await unless_gone(request, job.next())
        if not stream:
            return JSONResponse(style.whole(first, model))
        ending = stack.pop_all()  # from here on the stream ends the request
    events = style.events(job.rest(first), model)

    def failed(error: ApiError) -> bytes:
        progress.error = error.message
        return style.error(error)

    def end(status: int) -> None:
        progress.status = status
        ending.close()

    return EventStream(events, context.limits.ping_s, failed, end)


@contextlib.contextmanager
def admitted(context: Context) -> Iterator[ServedModel]:
    """Yield the model for one request, and count the request as in work.

    Raises:
        ApiError: too many requests are in work, the model is loading, or the server is stopping.
    """
    with context.live.model() as model:
        if context.active >= context.limits.requests:
            raise ApiError(429, f"{context.active} requests are in work: try again later", "too_many_requests")
        context.active += 1
        try:
            yield model
        finally:
            context.active -= 1


def _end(context: Context, job: Job) -> None:
    if not job.over:
        context.metrics.aborted.inc()
    job.cancel()
    if job.answer:
        context.metrics.observe(job.answer.completions)


def error_response(error: BaseException, anthropic: bool) -> Response:
    """Return the response to an error."""
    if isinstance(error, ClientGone):
        return Response(status_code=GONE)
    failure = of_exception(error)
    body = failure.anthropic() if anthropic else failure.openai()
    return JSONResponse(body, failure.status, headers=failure.headers)
