"""Remove secrets from text: values of environment variables that hold secrets, and credentials in addresses."""

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_ALWAYS_SECRET = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT")
_SECRET_NAME = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|API_KEY|ACCESS_KEY|PRIVATE_KEY|CONNECTION_STRING)$")
_SHORT = 8  # characters; a shorter value may be an ordinary word, and replacing it would spoil the text
# user:password@ of any address, and user@ of a web address, where the user may be a token
_IN_ADDRESS = re.compile(r"(?<=://)[^/\s@:'\"]*:[^/\s@'\"]+@|(?<=http://)[^/\s@'\"]+@|(?<=https://)[^/\s@'\"]+@")


def redact(text: str) -> str:
    """Return the text without the values of secret environment variables and without credentials in addresses."""
    for name, value in os.environ.items():
        secret = value.strip().rstrip("/")
        if secret and (name in _ALWAYS_SECRET or (_SECRET_NAME.search(name) and len(secret) >= _SHORT)):
            text = text.replace(secret, f"<{name}>")
    return _IN_ADDRESS.sub("<credentials>@", text)


def clean_tags(client: "MlflowClient", run: "Run") -> None:
    """Remove credentials from the tags that MLflow set on a run. MLflow tags a run with the git URL of the project."""
    for key, value in run.data.tags.items():
        cleaned = _IN_ADDRESS.sub("", value)
        if cleaned != value:
            client.set_tag(run.info.run_id, key, cleaned)
