"""Read the fields of a request of another protocol, and refuse what cannot be translated by its name."""

import contextlib
import difflib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from mlflow.exceptions import MlflowException

from steps.serving.errors import ApiError, of_exception


def invalid(param: str, expected: str) -> ApiError:
    """Return the refusal of a field."""
    return ApiError(400, f"{param}: {expected}", "invalid_value", param)


def present(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are not null."""
    return {name: value for name, value in body.items() if value is not None}


def refuse_unknown(fields: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise ApiError for the first field that is not known. It names the field and the nearest known one."""
    for name in fields:
        if name not in known:
            shown = name if name.isidentifier() and len(name) <= 40 else "a field"
            (nearest,) = difflib.get_close_matches(shown, sorted(known), n=1) or (None,)
            advice = f"did you mean {nearest}?" if nearest else "leave it out"
            raise invalid(shown, f"this server does not know this field; {advice}")


@contextlib.contextmanager
def renamed(names: Mapping[str, str]) -> Iterator[None]:
    """Let refusals of a chat request name the field of the request that the client sent.

    Args:
        names: the chat's name of a field -> the client's.
    """
    try:
        yield
    except MlflowException as error:
        refusal = of_exception(error)
        for chat, own in names.items():
            if refusal.param and (refusal.param + ".").startswith(f"{chat}."):
                param = own + refusal.param.removeprefix(chat)
                message = refusal.message.replace(refusal.param, param, 1)
                raise ApiError(refusal.status, message, refusal.code, param) from None
        raise


def object_of(value: Any, param: str) -> Mapping[str, Any]:
    """Return a value that is an object. Raise ApiError for another value."""
    if not isinstance(value, Mapping):
        raise invalid(param, "expected an object")
    return value


def list_of(value: Any, param: str) -> list[Any]:
    """Return a value that is a list. Raise ApiError for another value."""
    if not isinstance(value, list):
        raise invalid(param, "expected a list")
    return value


def text_of(value: Any, param: str, kinds: Collection[str]) -> str:
    """Return the text of a content: a string, or a list of parts of text. Raise ApiError for another part.

    Args:
        kinds: the types of parts that hold text.
    """
    if isinstance(value, str):
        return value
    texts = []
    for index, part in enumerate(list_of(value, param)):
        name = f"{param}[{index}]"
        part = object_of(part, name)
        if part.get("type") not in kinds or not isinstance(part.get("text", part.get("refusal")), str):
            raise invalid(name, "this model reads text only")
        texts.append(part.get("text", part.get("refusal")))
    return "".join(texts)


def string(value: Any, param: str) -> str:
    """Return a value that is a string. Raise ApiError for another value."""
    if not isinstance(value, str):
        raise invalid(param, "expected a text")
    return value
