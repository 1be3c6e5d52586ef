"""An answer of the stand-in that is an error."""


class ApiError(Exception):
    """As Databricks words one: a status, and a body with `error_code` and `message`."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
