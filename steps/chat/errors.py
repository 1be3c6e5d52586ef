"""The error that a caller of the model gets: one line that names the field, and never the request itself."""

from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE


class ModelError(MlflowException):
    """An error with OpenAI's `param` and `code`. Both are part of its JSON.

    MLflow's scoring server puts "Failed to predict data '<the whole request>'" before the message of every
    MlflowException. So the first message stays: a later one is not taken over.
    """

    def __init__(
        self,
        message: str,
        error_code: int = INVALID_PARAMETER_VALUE,
        param: str | None = None,
        code: str | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            error_code: MLflow's code. The HTTP status follows from it.
            param: the field, for example "messages[0].content".
            code: OpenAI's code, for example "context_length_exceeded".
        """
        self.param, self.code = param, code
        extra = {name: value for name, value in (("param", param), ("code", code)) if value is not None}
        super().__init__(message, error_code=error_code, **kwargs, **extra)

    @property
    def message(self) -> str:
        """The line."""
        return self._line

    @message.setter
    def message(self, line: str) -> None:
        if not hasattr(self, "_line"):
            self._line = " ".join(line.split())

    def in_row(self, row: int) -> "ModelError":
        """Return the same error with the number of the row before it. Rows are counted from 0."""
        error = ModelError(f"row {row}: {self.message}", param=self.param, code=self.code)
        error.error_code = self.error_code
        return error


class NotCopyable(ModelError, TypeError):
    """A loaded model was pickled or copied."""


def refuse_copy(*_: Any) -> Any:
    """Raise NotCopyable. A class whose instances can't be pickled or copied has it as `__reduce_ex__`."""
    raise NotCopyable(
        "a loaded model can't be pickled or copied, because it has a thread and the memory of this process: send its "
        "URI, and load it there with mlflow.pyfunc.load_model"
    )
