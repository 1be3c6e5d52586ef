"""The figures of /metrics, in Prometheus' text format. Every name begins with `phi_`."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from steps.chat.batching.generation import Completion
    from steps.serving.live import Live
    from steps.serving.traces import Traces

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536)


class Metrics:
    """Counters and histograms of one server."""

    def __init__(self, live: "Live", traces: "Traces") -> None:
        """
        Args:
            live, traces: where the gauges look when somebody asks for them.
        """
        registry = self.registry = CollectorRegistry()
        labels = ("path", "method", "status")
        self.http = Counter("phi_http_requests", "HTTP requests by path and status", labels, registry=registry)
        self.prompt_tokens = Counter("phi_prompt_tokens", "Tokens of prompts", registry=registry)
        self.cached_tokens = Counter("phi_prompt_tokens_cached", "Tokens that the prompt cache held", registry=registry)
        self.tokens = Counter("phi_generation_tokens", "Tokens of answers", registry=registry)
        self.success = Counter("phi_request_success", "Complete answers", ("finished_reason",), registry=registry)
        self.aborted = Counter(
            "phi_request_aborted",
            "Answers that were given up: the client went away, or the time was over",
            registry=registry,
        )

        def seconds(name: str, text: str) -> Histogram:
            return Histogram(name, text, buckets=_SECONDS, registry=registry)

        self.first = seconds("phi_time_to_first_token_seconds", "From the request to its first token")
        self.between = seconds("phi_inter_token_latency_seconds", "Mean time between two tokens of an answer")
        self.total = seconds("phi_e2e_request_latency_seconds", "From the request to the end of its answer")
        self.queued = seconds("phi_request_queue_time_seconds", "Until the request got a row of the KV cache")
        self.prompt_lengths, self.lengths = (
            Histogram(f"phi_request_{of}_tokens", f"Tokens of a {what}", buckets=_TOKENS, registry=registry)
            for of, what in (("prompt", "prompt"), ("generation", "complete answer"))
        )
        registry.register(_Gauges(live, traces))

    def text(self) -> bytes:
        """Return all figures as text."""
        return generate_latest(self.registry)

    def observe(self, completions: "Iterable[Completion]") -> None:
        """Count complete answers."""
        for completion in completions:
            self.prompt_tokens.inc(completion.prompt_tokens)
            self.cached_tokens.inc(completion.reused_tokens)
            self.tokens.inc(completion.completion_tokens)
            self.prompt_lengths.observe(completion.prompt_tokens)
            self.lengths.observe(completion.completion_tokens)
            self.success.labels(completion.finish_reason).inc()
            self.queued.observe(completion.queued_s)
            self.first.observe(completion.first_token_s)
            self.total.observe(completion.total_s)
            writing = completion.total_s - completion.first_token_s
            if completion.completion_tokens > 1 and writing > 0:  # else the answer came whole
                self.between.observe(writing / (completion.completion_tokens - 1))

    def totals(self) -> dict[str, float]:
        """Return what was served until now, for the run of `serve`."""
        return {
            "requests": _value(self.http),
            "answers": _value(self.success),
            "prompt_tokens": _value(self.prompt_tokens),
            "completion_tokens": _value(self.tokens),
        }


class _Gauges(Collector):
    """What the engine does at the moment."""

    def __init__(self, live: "Live", traces: "Traces") -> None:
        self._live, self._traces = live, traces

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges: all zero while no model is loaded."""
        model = self._live.current
        load = model.service.engine.load() if model and model.service else None
        running, waiting, share = (load.running, load.waiting, load.cache_share) if load else (0, 0, 0.0)
        yield GaugeMetricFamily("phi_requests_running", "Answers that have a row of the KV cache", value=running)
        yield GaugeMetricFamily("phi_requests_waiting", "Answers that wait for a row", value=waiting)
        yield GaugeMetricFamily("phi_kv_cache_usage_perc", "Share of the KV cache's tokens in use, 0 to 1", value=share)
        for name, value in (("written", self._traces.written), ("dropped", self._traces.dropped)):
            yield CounterMetricFamily(f"phi_traces_{name}", f"Sampled requests whose trace was {name}", value=value)
        yield GaugeMetricFamily("phi_ready", "1 if the server answers", value=int(self._live.state == "ok"))


def _value(counter: Counter) -> float:
    return sum(s.value for m in counter.collect() for s in m.samples if s.name.endswith("_total"))
