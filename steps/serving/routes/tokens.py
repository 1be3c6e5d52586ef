"""Tokens of texts and chats, and texts of tokens, as vLLM and llama.cpp ask for them."""

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from steps.serving.body import flag, read_json
from steps.serving.context import context_of
from steps.serving.errors import ApiError
from steps.serving.jobs import in_thread
from steps.serving.models import ServedModel
from steps.serving.protocols.fields import invalid, present, refuse_unknown
from steps.serving.routes.openai import check_model
from steps.serving.schema import ERRORS, body_of

router = APIRouter(responses=ERRORS)
_READ = ("model", "prompt", "content", "messages", "tools")
_FLAGS = ("return_token_strs", "with_pieces")  # vLLM's and llama.cpp's name
_FIXED = {"add_special_tokens": False, "add_special": False, "parse_special": True}  # how the tokenizer works


@router.post("/tokenize", openapi_extra=body_of("tokenize"))
async def tokenize(request: Request) -> Response:
    """Return the tokens of `prompt` (or `content`), or of `messages` in the chat template."""
    body = await read_json(request)
    refuse_unknown(present(body), (*_READ, *_FLAGS, *_FIXED))
    with_texts = any([flag(body, name) for name in _FLAGS])
    for name, value in _FIXED.items():
        if body.get(name) is not None and flag(body, name) is not value:
            raise invalid(name, f"this server tokenizes as if it were {str(value).lower()}: leave it out")
    with context_of(request).live.model() as model:
        check_model(model, body)
        tokens = await in_thread(lambda: _tokens(model, body))
        answer: dict[str, Any] = {"count": len(tokens), "max_model_len": model.context_length, "tokens": tokens}
        if with_texts:
            answer["token_strs"] = [model.token_text(token) for token in tokens]
    return JSONResponse(answer)


@router.post("/detokenize", openapi_extra=body_of("detokenize"))
async def detokenize(request: Request) -> Response:
    """Return the text of `tokens`."""
    body = await read_json(request)
    refuse_unknown(present(body), ("model", "tokens"))
    tokens = body.get("tokens")
    if not isinstance(tokens, list) or not all(type(token) is int and token >= 0 for token in tokens):
        raise ApiError(400, "tokens: expected a list of whole numbers", "invalid_value", "tokens")
    with context_of(request).live.model() as model:
        check_model(model, body)
        text = await in_thread(lambda: model.text(tokens))
    return JSONResponse({"prompt": text, "content": text})


@router.get("/tokenizer_info")
async def tokenizer_info(request: Request) -> Response:
    """Return the special tokens and the chat template, as lm-eval asks for them."""
    with context_of(request).live.model() as model:
        return JSONResponse(await in_thread(model.tokenizer_info))


def _tokens(model: ServedModel, body: dict[str, Any]) -> list[int]:
    if body.get("messages") is not None:
        return model.prompt_tokens({name: body[name] for name in ("messages", "tools") if name in body})
    text = body.get("content") if body.get("prompt") is None else body["prompt"]
    if not isinstance(text, str):
        raise ApiError(400, "prompt: expected a text, or messages beside it", "invalid_value", "prompt")
    return model.tokens(text)
