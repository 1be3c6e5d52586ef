"""OpenAI's endpoints: chat, completions and models."""

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from steps.serving.answers import Answer, Body
from steps.serving.body import read_json, streams
from steps.serving.context import context_of
from steps.serving.errors import ApiError
from steps.serving.exchange import exchange
from steps.serving.models import ServedModel
from steps.serving.schema import ERRORS, body_of

router = APIRouter(responses=ERRORS)


def check_model(model: ServedModel, body: Mapping[str, Any]) -> None:
    """Raise ApiError if a request asks for another model by its name. No name means this model."""
    name = body.get("model")
    if name is not None and name not in model.names:
        message = f"the model does not exist: this server has {model.name!r}"
        raise ApiError(404, message, "model_not_found", "model")


@router.post("/v1/chat/completions", openapi_extra=body_of("chat"))
@router.post("/chat/completions", include_in_schema=False)
async def chat_completions(request: Request) -> Response:
    """Answer a chat."""
    return await _answer(request, ServedModel.chat)


@router.post("/v1/completions", openapi_extra=body_of("completion"))
@router.post("/completions", include_in_schema=False)
async def completions(request: Request) -> Response:
    """Continue prompts as they are."""
    return await _answer(request, ServedModel.complete)


@router.get("/v1/models")
@router.get("/models", include_in_schema=False)
async def models(request: Request) -> Response:
    """List the one model."""
    with context_of(request).live.model() as model:
        return JSONResponse({"object": "list", "data": [_entry(model)]})


@router.get("/v1/models/{name:path}")
async def one_model(request: Request, name: str) -> Response:
    """Describe the model."""
    with context_of(request).live.model() as model:
        check_model(model, {"model": name})
        return JSONResponse(_entry(model))


async def _answer(request: Request, method: Callable[[ServedModel, Body, bool], Answer]) -> Response:
    body = await read_json(request)
    stream = streams(body)

    def start(model: ServedModel) -> Answer:
        check_model(model, body)
        return method(model, body, stream)

    return await exchange(request, start, stream)


def _entry(model: ServedModel) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "phi-mlflow",
        "max_model_len": model.context_length,
        "root": model.uri,
    }
