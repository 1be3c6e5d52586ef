"""serve: a model -> a server with OpenAI's, Anthropic's and MLflow's endpoints; its run says what was served."""

import logging
import math
from functools import partial

from steps.common.errors import StepError, one_of
from steps.registry.versions import pinned_model
from steps.runs.entry_point import run_entry_point
from steps.runs.step import Step
from steps.serving.app import make_app
from steps.serving.context import Context
from steps.serving.keys import Keys, check_host
from steps.serving.limits import Limits
from steps.serving.models import ServedModel, config_changes, served_name
from steps.serving.server import Source, listen, serve
from steps.serving.traces import Traces


def check(params: dict[str, str]) -> None:
    """Raise StepError for parameters that cannot be right, before any work."""
    if not params["port"].isdecimal() or not 0 <= int(params["port"]) <= 65535:
        raise StepError(f"port is {params['port']!r}; expected a number from 0 to 65535, and 0 takes a free port")
    one_of("follow", params["follow"], ("true", "false"))
    if params["follow"] == "true" and "@" not in params["model"]:
        raise StepError(f"follow is true, but model is {params['model']!r}: give an alias, as in models:/NAME@champion")
    if not 0 <= _number(params["trace"]) <= 1:
        raise StepError(f"trace is {params['trace']!r}; expected a share of the requests from 0 to 1, such as 0.05")
    check_host(params["host"], len(Keys()))
    Limits.from_environment()
    config_changes()


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def serve_model(step: Step, model: str, host: str, port: str, follow: str, trace: str) -> None:
    """Serve until a signal comes, then log what was served."""
    logging.getLogger("sse_starlette").setLevel(logging.WARNING)  # it writes what it sends
    traces = Traces(float(trace), step.run.info.experiment_id)
    context = Context(Limits.from_environment(), Keys(), traces=traces)
    bound = listen(host, int(port))
    address = f"http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}"
    step.console.line(f"listening on {address}, loading {model}")
    resolve = partial(pinned_model, model, "model")
    name = served_name(model)

    def load(uri: str) -> ServedModel:
        loaded = ServedModel(uri, name, context.limits.request_s)
        loaded.names.add(model)
        if context.live.current:
            step.console.line(f"{uri} takes over")
        step.tag(model_uri=uri)
        return loaded

    def on_ready() -> None:
        for line in _banner(address, name, len(context.keys)):
            step.console.line(line)

    try:
        source = Source(resolve(), load, resolve if follow == "true" else None)
        serve(make_app(context), bound, source, on_ready)
    finally:
        bound.close()
        traces.close(context.limits.drain_s)
    totals = context.metrics.totals()
    for metric, value in totals.items():
        step.client.log_metric(step.run_id, metric, value)
    figures = ", ".join(f"{value:,.0f} {metric.replace('_', ' ')}" for metric, value in totals.items())
    step.summarise(f"{model}: {figures}")


def _banner(address: str, name: str, keys: int) -> list[str]:
    """Return the lines that tell a user how to ask."""
    key = ' -H "Authorization: Bearer $KEY"' if keys else ""
    body = f'{{"model": "{name}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
    return [
        f"serving {name}: base URL {address}/v1, chat page {address}/, figures {address}/metrics",
        f"  curl {address}/v1/chat/completions{key} -H 'Content-Type: application/json' -d '{body}'",
    ]


if __name__ == "__main__":
    run_entry_point("serve", serve_model, check)
