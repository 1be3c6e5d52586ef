"""Errors that the stand-in answers."""


class ApiError(Exception):
    """An error as Databricks answers it: an HTTP status, and a body with `error_code` and `message`."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
