"""Keep a sample of the requests as MLflow traces, off the path of the requests.

    event loop   exchange ends ─► offer(): sampled? ─► queue, or count a dropped one      never waits
    thread                                                 └─► redact ─► write a trace to the tracking server

A tracking server that is slow or away costs traces, and no request. No secret and no address is kept.
"""

import contextlib
import logging
import queue
import random
import re
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from steps.serving.redaction import redact_value

if TYPE_CHECKING:
    from steps.chat.batching.generation import Completion

ROUTE, STATUS, CLIENT = "phi.route", "phi.status", "phi.client"  # tags of a trace
MODEL, MODEL_NAME, MODEL_VERSION, MODEL_ID = "phi.model_uri", "phi.model_name", "phi.model_version", "phi.model_id"
FIRST_TOKEN_MS, TOTAL_MS = "time_to_first_token_ms", "total_ms"  # attributes of its span, of the first choice
ANSWER_TOKENS, FINISH_REASONS = "answer_tokens", "finish_reasons"  # of each choice
_LENGTH = 1000  # requests that may wait to be written
_PATIENCE, _LOOK = 120.0, 0.1  # seconds to wait for tracing, and between two looks
_log = logging.getLogger("phi_mlflow.serving")


@dataclass(frozen=True)
class Exchanged:
    """A request and what became of it."""

    route: str
    client: str  # the beginning of the digest of the client's key; empty without keys
    model_name: str  # as clients know it; empty if no model was loaded
    model_uri: str
    model_id: str  # of the logged model; empty if the model was only saved
    body: dict[str, Any]
    completions: "tuple[Completion, ...]"
    status: int  # of HTTP
    error: str  # the message of a refusal or a failure; empty for none
    start_ns: int  # since 1970
    end_ns: int


class Traces:
    """Writes sampled requests in a thread of its own."""

    def __init__(self, rate: float, experiment_id: str) -> None:
        """
        Args:
            rate: the share of the requests that is kept, from 0 to 1.
            experiment_id: where the traces go.
        """
        self.written = self.dropped = 0
        self._rate, self._experiment_id = rate, experiment_id
        self._random = random.Random()
        self._queue: queue.Queue[Exchanged | None] = queue.Queue(_LENGTH)
        self._thread = threading.Thread(target=self._work, name="traces", daemon=True)
        if rate:
            from mlflow.environment_variables import MLFLOW_ENABLE_ASYNC_TRACE_LOGGING

            # This thread waits for the store, and MLflow's queue would hide how far behind it is.
            MLFLOW_ENABLE_ASYNC_TRACE_LOGGING.set(False)
            self._thread.start()

    def sampled(self) -> bool:
        """Return whether the next request is to be kept."""
        return self._rate > 0 and self._random.random() < self._rate

    def offer(self, exchanged: Exchanged) -> None:
        """Queue a sampled request, or count it as dropped if the queue is full."""
        try:
            self._queue.put_nowait(exchanged)
        except queue.Full:
            self.dropped += 1

    def close(self, seconds: float) -> None:
        """Write what is queued, for so many seconds at most. What is left is counted as dropped."""
        if not self._thread.is_alive():
            return
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=seconds)
        self._thread.join(seconds)
        self.dropped += max(0, self._queue.qsize() - 1) if self._thread.is_alive() else 0

    def _work(self) -> None:
        import mlflow

        while (exchanged := self._queue.get()) is not None:
            try:
                self._wait_for_tracing()
                _write(exchanged, self._experiment_id)
                self.written += 1
            except Exception as error:  # MLflow itself only warns when its store is away
                self.dropped += 1
                _log.warning("a trace could not be written: %s", " ".join(str(error).split())[:300])
        mlflow.flush_trace_async_logging()  # if the process used MLflow's queue before

    def _wait_for_tracing(self) -> None:
        """Wait while MLflow loads a model: it makes no traces in the whole process then, and says nothing.

        Raises:
            RuntimeError: tracing stays off. Somebody has turned it off.
        """
        from mlflow.tracing.provider import is_tracing_enabled

        for _ in range(int(_PATIENCE / _LOOK)):
            if is_tracing_enabled():
                return
            time.sleep(_LOOK)
        raise RuntimeError("MLflow's tracing is off")


def _write(exchanged: Exchanged, experiment_id: str) -> None:
    """Write one trace: the request, the texts, the token counts and the engine's times."""
    import mlflow
    from mlflow.entities import SpanType
    from mlflow.tracing.constant import SpanAttributeKey

    version = re.fullmatch(r"models:/+[^/@]+/(\d+)", exchanged.model_uri)
    tags = {
        ROUTE: exchanged.route,
        STATUS: str(exchanged.status),
        CLIENT: exchanged.client,
        MODEL: exchanged.model_uri,
        MODEL_NAME: exchanged.model_name,
        MODEL_VERSION: version[1] if version else "",
        MODEL_ID: exchanged.model_id,
    }
    span = mlflow.start_span_no_context(
        name="request",
        span_type=SpanType.CHAT_MODEL,
        inputs=redact_value(exchanged.body),
        tags={name: value for name, value in tags.items() if value},
        experiment_id=experiment_id,
        start_time_ns=exchanged.start_ns,
    )
    completions = exchanged.completions
    if completions:
        prompt, written = completions[0].prompt_tokens, sum(c.completion_tokens for c in completions)
        usage = {"input_tokens": prompt, "output_tokens": written, "total_tokens": prompt + written}
        span.set_attribute(SpanAttributeKey.CHAT_USAGE, usage)
        span.set_attribute(FIRST_TOKEN_MS, 1e3 * completions[0].first_token_s)
        span.set_attribute("queue_ms", 1e3 * completions[0].queued_s)
        span.set_attribute(TOTAL_MS, 1e3 * completions[0].total_s)
        span.set_attribute(ANSWER_TOKENS, [completion.completion_tokens for completion in completions])
        span.set_attribute(FINISH_REASONS, [completion.finish_reason for completion in completions])
    outputs: dict[str, Any] = {"texts": [redact_value(completion.text) for completion in completions]}
    if exchanged.error:
        outputs["error"] = redact_value(exchanged.error)
    span.end(outputs=outputs, status="ERROR" if exchanged.error else "OK", end_time_ns=exchanged.end_ns)
