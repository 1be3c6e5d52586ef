"""Tell where a checkpoint or an adapter is: in a hub repository, in a local folder, or at an artifact URI."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from steps.checkpoint.manifest import Origin
from steps.common.errors import StepError

_ARTIFACT_URI = re.compile(r"[a-z][a-z0-9+.-]*:/")
_REPO_ID = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_VERSIONED = ("runs:/", "models:/", "mlflow-artifacts:/")


@dataclass(frozen=True)
class Source:
    """The place that a parameter names."""

    kind: Literal["hub", "folder", "artifact"]
    location: str  # the repository, the folder or the URI, as the user gave it, without a revision
    folder: Path | None = None  # only if the kind is folder
    revision: str = ""  # only of an adapter on a hub, if the user gave one

    @property
    def name(self) -> str:
        """The repository's ID, the folder's name, the registered model's name, or the last part of the URI."""
        if self.kind == "hub":
            return self.location
        if self.folder:
            return self.folder.resolve().name
        if self.location.startswith("models:/"):
            return re.split(r"[/@]", self.location.removeprefix("models:/").strip("/"))[0]
        return self.location.rstrip("/").rpartition("/")[2]

    @property
    def is_mutable(self) -> bool:
        """Whether the content can change and has no version to pin, as in an object store or on a file share."""
        return self.kind == "artifact" and not self.location.startswith(_VERSIONED)

    def origin(self, commit: str) -> Origin:
        """Return the source as a manifest records it. The commit is recorded only for a hub repository."""
        return Origin(
            kind=self.kind,
            location=self.location,
            name=self.name,
            commit=commit if self.kind == "hub" else "",
        )


def parse_source(text: str, root: Path, parameter: str = "source") -> Source:
    """Return the source that a parameter names. If a folder exists, it counts before a repository of the same name.

    Args:
        text: the parameter's value.
        root: the project's folder; relative folders start there.
        parameter: `source` or `adapter`. An adapter's value may end in its revision: owner/name@revision.

    Raises:
        StepError: the value names no repository, no folder and no URI.
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
    """Return whether a revision is a full commit, 40 hex digits, and needs no look-up."""
    return bool(_COMMIT.fullmatch(revision))
