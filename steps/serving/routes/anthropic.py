"""Anthropic's Messages API."""

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from steps.serving.body import read_json, streams
from steps.serving.context import context_of
from steps.serving.exchange import Style, exchange
from steps.serving.jobs import in_thread
from steps.serving.models import ServedModel
from steps.serving.protocols import messages_answer
from steps.serving.protocols.fields import renamed
from steps.serving.protocols.messages_request import NAMES, chat_request
from steps.serving.routes.openai import check_model
from steps.serving.schema import ERRORS, body_of

router = APIRouter(responses=ERRORS)
_STYLE = Style(messages_answer.whole, messages_answer.events, messages_answer.error, NAMES)


@router.post("/v1/messages", openapi_extra=body_of("message"))
async def messages(request: Request) -> Response:
    """Answer a request of the Messages API."""
    body = await read_json(request)
    stream = streams(body)
    chat = chat_request(body)
    if stream:
        chat["stream_options"] = {"include_usage": True}

    def start(model: ServedModel) -> Any:
        check_model(model, body)
        return model.chat(chat, stream)

    return await exchange(request, start, stream, _STYLE)


@router.post("/v1/messages/count_tokens", openapi_extra=body_of("count"))
async def count_tokens(request: Request) -> Response:
    """Count the tokens of a request's prompt."""
    chat = chat_request(await read_json(request), needs_max_tokens=False)
    with context_of(request).live.model() as model:
        check_model(model, chat)
        with renamed(NAMES):
            return JSONResponse({"input_tokens": len(await in_thread(lambda: model.prompt_tokens(chat)))})
