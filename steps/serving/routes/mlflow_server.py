"""MLflow's own endpoints, with the answers of `mlflow models serve`."""

import asyncio
import json

import mlflow
from fastapi import APIRouter
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import scoring_server
from starlette.requests import Request
from starlette.responses import Response

from steps.serving.body import read_bytes
from steps.serving.context import context_of
from steps.serving.errors import ApiError
from steps.serving.exchange import admitted
from steps.serving.jobs import in_thread, unless_gone

router = APIRouter()


@router.head("/ping", include_in_schema=False)
@router.get("/ping")
async def ping(request: Request) -> Response:
    """200 when the model is loaded."""
    status = 200 if context_of(request).live.state == "ok" else 503
    return Response("\n", status, media_type="application/json")


@router.get("/version")
async def version() -> Response:
    """Return MLflow's version."""
    return Response(mlflow.__version__, media_type="application/json")


@router.post("/invocations")
async def invocations(request: Request) -> Response:
    """Answer a batch as MLflow's scoring server does: its forms of input, its form of output."""
    data = await read_bytes(request)
    kind = request.headers.get("content-type", "")
    context = context_of(request)
    with admitted(context) as model:
        schema = model.pyfunc.metadata.get_input_schema()
        work = in_thread(lambda: scoring_server.invocations(data, kind, model.pyfunc, schema))
        try:
            async with asyncio.timeout(context.limits.request_s):
                result = await unless_gone(request, work)
        except TimeoutError:
            message = f"no complete answer within {context.limits.request_s:g} s: ask for fewer tokens"
            raise ApiError(504, message, "timeout") from None
        except MlflowException as error:
            return _refused(error)
    return Response(result.response, result.status, media_type=result.mimetype)


def _refused(error: MlflowException) -> Response:
    """Return MLflow's answer to an error, without the request and the traceback that MLflow puts into it."""
    body = json.loads(error.serialize_as_json())
    body.pop("stack_trace", None)
    message = body["message"]
    if message.startswith("Failed to predict data"):
        body["message"] = message.rpartition("\nError: ")[2]
    return Response(json.dumps(body), error.get_http_status_code(), media_type="application/json")
