"""The three kinds of source, of a checkpoint or an adapter: a hub repository, a local folder, an artifact URI."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from steps.checkpoint.manifest import Origin
from steps.common.errors import StepError

_ARTIFACT_URI = re.compile(r"[a-z][a-z0-9+.-]*:/")
_REPO_ID = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Source:
    """Where something is: `text` as it was given, without a revision; for a folder its path."""

    kind: Literal["hub", "folder", "artifact"]
    text: str
    folder: Path | None = None
    revision: str = ""  # of an adapter on a hub, where one was given

    @property
    def name(self) -> str:
        """The model's name: the repository's ID, the folder's name, a registered model's, or the last part of a URI."""
        if self.kind == "hub":
            return self.text
        if self.folder:
            return self.folder.resolve().name
        if self.text.startswith("models:/"):
            return re.split(r"[/@]", self.text.removeprefix("models:/").strip("/"))[0]
        return self.text.rstrip("/").rpartition("/")[2]

    def origin(self, commit: str) -> Origin:
        """Return where this is, for a manifest. The commit counts for a hub repository only."""
        return Origin(kind=self.kind, location=self.text, name=self.name, commit=commit if self.kind == "hub" else "")

    @property
    def moves(self) -> bool:
        """Whether what is there may change and has no version to pin: an object store or a file share."""
        return self.kind == "artifact" and not self.text.startswith(("runs:/", "models:/", "mlflow-artifacts:/"))


def parse_source(text: str, root: Path, parameter: str = "source") -> Source:
    """Tell which kind of source `text` names; a folder that exists wins over a repository of the same name.

    Args:
        root: what relative folders are relative to, the project's folder.
        parameter: `source`, or `adapter`, which has no parameter beside it for a revision and so may hold one.

    Raises:
        StepError: it is none of the three.
    """
    folder = root / text
    if text and folder.is_dir():
        return Source("folder", text, folder)
    if _ARTIFACT_URI.match(text):
        return Source("artifact", text)
    repo, at, revision = text.partition("@") if parameter == "adapter" else (text, "", "")
    if _REPO_ID.fullmatch(repo) and not repo.startswith((".", "~")) and bool(at) == bool(revision):
        return Source("hub", repo, revision=revision)
    form = "owner/name, or owner/name@revision" if parameter == "adapter" else "owner/name"
    raise StepError(
        f"{parameter} is {text!r}; expected a hub repository ({form}), a folder that exists (absolute, or relative to "
        "the project's folder), or an artifact URI (runs:/..., models:/..., s3://...)"
    )


def is_commit(revision: str) -> bool:
    """Whether a revision is a full commit, 40 hexadecimal digits, and so needs no look-up."""
    return bool(_COMMIT.fullmatch(revision))
