"""What must not be seen: values of environment variables that hold secrets, and credentials in addresses."""

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_ALWAYS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT")
_SECRET = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|API_KEY|ACCESS_KEY|PRIVATE_KEY|CONNECTION_STRING)$")
_SHORT = 8  # characters; replacing what is shorter would spoil text that has nothing to do with it
# user:password@ of any address, and user@ of a web address, where a token may stand alone
_IN_ADDRESS = re.compile(r"(?<=://)[^/\s@:'\"]*:[^/\s@'\"]+@|(?<=http://)[^/\s@'\"]+@|(?<=https://)[^/\s@'\"]+@")


def redact(text: str) -> str:
    """`text` without the values of secret environment variables, and without credentials in addresses."""
    for name, value in os.environ.items():
        value = value.strip().rstrip("/")
        if value and (name in _ALWAYS or (_SECRET.search(name) and len(value) >= _SHORT)):
            text = text.replace(value, f"<{name}>")
    return _IN_ADDRESS.sub("<credentials>@", text)


def clean_tags(client: "MlflowClient", run: "Run") -> None:
    """Take credentials out of the tags that MLflow gave a run: a git URL's stand in its source and its repository."""
    for key, value in run.data.tags.items():
        cleaned = _IN_ADDRESS.sub("", value)
        if cleaned != value:
            client.set_tag(run.info.run_id, key, cleaned)
