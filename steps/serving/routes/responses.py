"""OpenAI's Responses API, without memory: every request holds the whole conversation."""

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from steps.serving.body import read_json, streams
from steps.serving.exchange import Style, exchange
from steps.serving.models import ServedModel
from steps.serving.protocols.responses_answer import ResponseWriter
from steps.serving.protocols.responses_request import NAMES, chat_request
from steps.serving.routes.openai import check_model
from steps.serving.schema import ERRORS, body_of

router = APIRouter(responses=ERRORS)


@router.post("/v1/responses", openapi_extra=body_of("response"))
async def responses(request: Request) -> Response:
    """Answer a request of the Responses API."""
    body = await read_json(request)
    stream = streams(body)
    chat = chat_request(body)
    if stream:
        chat["stream_options"] = {"include_usage": True}
    writer = ResponseWriter(body)

    def start(model: ServedModel) -> Any:
        check_model(model, body)
        return model.chat(chat, stream)

    return await exchange(request, start, stream, Style(writer.whole, writer.events, writer.error, NAMES))
