"""checkpoint/manifest.json: a checkpoint, its adapter, and the size and SHA-256 of each file, as a typed document."""

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field

from steps.common.documents import Document, Part
from steps.common.errors import StepError
from steps.common.hashing import FileEntry, sha256

MANIFEST = "checkpoint/manifest.json"  # the artifact's path in a fetch_model run


class Origin(Part):
    """Where a checkpoint or an adapter was found."""

    kind: Literal["hub", "folder", "artifact"]
    location: str  # the repository, the folder or the URI
    name: str
    commit: str  # 40 hex digits; empty if it is not from a hub


class Architecture(Part):
    """The facts that config.json and the headers of the weights state. None if config.json does not state a fact."""

    architecture: str
    parameters: int  # the number of weight values
    dtype: str  # torch's name, such as bfloat16
    context_length: int | None  # tokens
    layers: int | None
    hidden_size: int | None
    vocabulary: int | None  # tokens
    attention_heads: int | None
    kv_heads: int | None
    rope: str  # the kind of rotary position embedding: default, longrope, ...
    partial_rotary_factor: float
    tied_embeddings: bool


class AdapterManifest(Part):
    """A LoRA adapter that the steps after fetch_model merge into the checkpoint."""

    origin: Origin
    licence: str
    rank: int
    alpha: float
    target_modules: tuple[str, ...]
    modules: int  # the number of modules that the adapter changes
    parameters: int
    made_for: str  # the base that the adapter names
    files: tuple[FileEntry, ...] = Field(min_length=1)


class CanonicalForm(Part):
    """How the canonical form, which later steps read, differs from the source. See canonical.py."""

    changes: tuple[str, ...]  # in words
    ignored_files: tuple[str, ...]  # files of the source that have no part in the checkpoint
    end_tokens: tuple[int, ...]  # token IDs that end an answer
    end_token_sources: tuple[str, ...]  # the files that name them, or "the tokenizer" or "the chat template"
    has_chat_template: bool
    builds_tokenizer: bool  # whether transformers builds tokenizer.json from an older format


class Manifest(Document):
    """The whole of checkpoint/manifest.json."""

    written_by: ClassVar[str] = "fetch_model"
    schema_version: Literal[3] = 3
    origin: Origin
    licence: str
    architecture: Architecture
    wrappers: tuple[str, ...]  # the wrappers that this architecture can have: transformers, custom
    canonical: CanonicalForm
    files: tuple[FileEntry, ...] = Field(min_length=1)
    adapter: AdapterManifest | None = None

    def with_adapter(self, adapter: AdapterManifest) -> Self:
        """Return the manifest of this checkpoint and an adapter. Its name, `base+adapter`, names both."""
        name = f"{self.origin.name}+{adapter.origin.name.rpartition('/')[2]}"
        return self.model_copy(update={"adapter": adapter, "origin": self.origin.model_copy(update={"name": name})})


def verify(folder: Path, files: tuple[FileEntry, ...], progress: Callable[[int], object] = lambda count: None) -> None:
    """Check that every file is in a folder and has not changed. Sizes are compared before contents.

    Args:
        files: the files of a manifest.
        progress: called with the number of bytes of each block that was hashed.

    Raises:
        StepError: a file is missing or has changed; the line names the first.
    """
    for file in files:
        path = folder / file.path
        if not path.is_file():
            raise StepError(f"{file.path} is missing in {folder}: run fetch_model again")
        if path.stat().st_size != file.size:
            raise StepError(
                f"{file.path} in {folder} has {path.stat().st_size} bytes, the manifest says {file.size}: "
                "the file has changed; run fetch_model again"
            )
    for file in files:
        path = folder / file.path
        if sha256(path, progress) != file.sha256:
            raise StepError(
                f"{file.path} in {folder} does not have the SHA-256 that the manifest states: the file has changed or "
                f"is damaged; if it is in the hub's cache, delete {path.resolve()}; then run fetch_model again"
            )
