"""What probes and monitors ask: is the server there, does it answer, and its figures."""

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from steps.serving.context import context_of
from steps.serving.errors import ApiError
from steps.serving.schema import ERRORS

router = APIRouter(responses=ERRORS)


@router.head("/health", include_in_schema=False)
@router.get("/health")
async def health(request: Request) -> Response:
    """200 while the server answers; 503 while the model loads and while the server stops."""
    live = context_of(request).live
    refusal = live.refusal()
    if refusal:
        raise refusal
    return JSONResponse({"status": live.state})


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Return the figures in Prometheus' text format."""
    return Response(context_of(request).metrics.text(), media_type=CONTENT_TYPE_LATEST)


@router.post("/v1/embeddings", include_in_schema=False)
@router.post("/v1/rerank", include_in_schema=False)
async def embeddings() -> Response:
    """Say that this model has no embeddings. Clients need not try again."""
    raise ApiError(501, "this model writes text: it has no embeddings", "not_supported")
