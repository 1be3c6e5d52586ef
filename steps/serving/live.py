"""Which model answers: none while the first one loads, then one, and with `follow` the next one after it.

load 1 ──► current = 1 ────────────────► current = 2 ──►      a request uses the model that was current when it came
                 load 2 beside 1 ──► ready    1 finishes what it has, then closes
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from functools import partial

import psutil

from steps.common.disk import size_text
from steps.common.errors import StepError
from steps.serving.errors import ApiError, of_exception
from steps.serving.jobs import in_thread
from steps.serving.models import ServedModel

_log = logging.getLogger("phi_mlflow.serving")

Load = Callable[[], ServedModel]


class Live:
    """The state of the server: loading, ready, draining, or failed."""

    def __init__(self) -> None:
        self.current: ServedModel | None = None
        self.draining = False
        self.failure: BaseException | None = None

    @property
    def state(self) -> str:
        """Return "ok", "loading" or "draining"."""
        if self.draining:
            return "draining"
        return "ok" if self.current else "loading"

    def refusal(self) -> ApiError | None:
        """Return the error of a request that comes while no model can answer it."""
        if self.draining:
            return ApiError(503, "the server is stopping: ask another one", "draining")
        return None if self.current else ApiError(503, "the model is loading: try again", "loading")

    @contextlib.contextmanager
    def model(self) -> Iterator[ServedModel]:
        """Yield the current model, which stays loaded while the block runs.

        Raises:
            ApiError: the model is loading or the server is stopping.
        """
        refusal = self.refusal()
        if refusal or self.current is None:
            raise refusal or ApiError(503, "the model is loading: try again", "loading")
        model = self.current
        model.use()
        try:
            yield model
        finally:
            model.release()

    async def start(self, load: Load) -> None:
        """Load the first model. Requests get 503 until it is loaded."""
        self.current = await in_thread(load)

    async def follow(self, resolve: Callable[[], str], load: Callable[[str], ServedModel], seconds: float) -> None:
        """Look at the alias from time to time, for ever. Replace the model when the alias names another one.

        Args:
            resolve: returns the URI that the alias stands for now.
            load: loads a URI.
            seconds: between two looks.
        """
        rejected = told = ""
        while True:
            await asyncio.sleep(seconds)
            try:
                uri = await in_thread(resolve)
                before = self.current
                if before is None or uri in (before.uri, rejected):
                    continue
                check_memory(before)
                rejected = uri
                self.current = await in_thread(partial(load, uri))
                before.retire()
                rejected = told = ""
                _log.info("%s replaced %s", uri, before.uri)
            except Exception as error:  # the present model goes on; a model that was not loaded is not tried again
                message = str(error) if isinstance(error, StepError) else of_exception(error).message
                if message != told:
                    _log.warning("the new model is not served: %s", message)
                told = message


def check_memory(present: ServedModel) -> None:
    """Raise ApiError if a second model of the present one's size does not fit into the free memory."""
    size = int((present.pyfunc.metadata.model_size_bytes or 0) * 1.2)
    free = psutil.virtual_memory().available
    if free < size:
        raise ApiError(503, f"a second model needs {size_text(size)} of memory, and less is free", "memory")
