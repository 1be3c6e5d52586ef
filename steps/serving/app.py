"""The application: its endpoints and its handlers of errors."""

from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from mlflow.exceptions import MlflowException
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from steps.serving.context import Context
from steps.serving.errors import ApiError, of_exception
from steps.serving.exchange import error_response
from steps.serving.gate import Gate
from steps.serving.jobs import ClientGone
from steps.serving.progress import progress_of
from steps.serving.routes import anthropic, health, mlflow_server, openai, page, responses, tokens


def make_app(context: Context) -> FastAPI:
    """Return the application of a server."""
    app = FastAPI(title="Phi-MLflow", version="1", docs_url=None, redoc_url=None)  # FastAPI's pages load from a CDN
    app.state.context = context
    for module in (page, health, mlflow_server, openai, responses, anthropic, tokens):
        app.include_router(module.router)
    for error in (ApiError, MlflowException, ClientGone, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(error, _on_error)
    app.add_middleware(Gate, context=context)
    return app


async def _on_error(request: Request, error: Any) -> Response:
    if isinstance(error, HTTPException):
        error = _of_http(error)
    elif isinstance(error, RequestValidationError):
        error = ApiError(400, "a parameter of the address is not valid", "invalid_value")
    progress_of(request.scope).error = of_exception(error).message
    return error_response(error, request.url.path.startswith("/v1/messages"))


def _of_http(error: HTTPException) -> ApiError:
    if error.status_code == 404:
        return ApiError(404, "this server has no such address: see /openapi.json", "not_found")
    if error.status_code == 405:
        return ApiError(405, "this address does not take this method", "method_not_allowed", headers=error.headers)
    return ApiError(error.status_code, str(error.detail), None, headers=error.headers)
