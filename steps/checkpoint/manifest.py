"""Describe a checkpoint or an adapter as a typed document, checkpoint/manifest.json, and verify files against it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, ValidationError

from steps.checkpoint.adapter import ADAPTER_FILES, check_adapter
from steps.checkpoint.checks import check_architecture, check_config, check_files, is_allowed
from steps.checkpoint.headers import Weights, read_config, read_weights
from steps.common.documents import Document, Part
from steps.common.errors import StepError
from steps.common.hashing import FileEntry, describe_files, sha256

MANIFEST = "checkpoint/manifest.json"  # the artifact's path in a fetch_model run
_LICENCE_FIELD = re.compile(r"^license:\s*(\S+)", re.MULTILINE)


class Origin(Part):
    """Where a checkpoint or an adapter was found."""

    kind: Literal["hub", "folder", "artifact"]
    location: str  # the repository, the folder or the URI
    name: str
    commit: str  # 40 hex digits; empty where it is not from a hub


class Architecture(Part):
    """What config.json and the headers of the weights say. None where config.json does not say it."""

    architecture: str
    parameters: int
    dtype: str
    context_length: int | None
    layers: int | None
    hidden_size: int | None
    vocabulary: int | None
    attention_heads: int | None
    kv_heads: int | None
    rope: str
    partial_rotary_factor: float
    tied_embeddings: bool


class AdapterManifest(Part):
    """A LoRA adapter that the steps after fetch_model merge into the checkpoint."""

    origin: Origin
    licence: str
    rank: int
    alpha: float
    target_modules: tuple[str, ...]
    modules: int
    parameters: int
    made_for: str  # the base that the adapter names
    files: tuple[FileEntry, ...] = Field(min_length=1)


class Manifest(Document):
    """The whole of checkpoint/manifest.json."""

    written_by: ClassVar[str] = "fetch_model"
    schema_version: Literal[2] = 2
    origin: Origin
    licence: str
    architecture: Architecture
    files: tuple[FileEntry, ...] = Field(min_length=1)
    adapter: AdapterManifest | None = None

    def with_adapter(self, adapter: AdapterManifest) -> Self:
        """Return the manifest of this checkpoint and an adapter. Its name, `base+adapter`, names both."""
        name = f"{self.origin.name}+{adapter.origin.name.rpartition('/')[2]}"
        return self.model_copy(update={"adapter": adapter, "origin": self.origin.model_copy(update={"name": name})})


def build_manifest(folder: Path, origin: Origin, progress: Callable[[int], object] = lambda count: None) -> Manifest:
    """Describe the checkpoint in a folder.

    Args:
        origin: where the folder's files come from.
        progress: called with the number of bytes of each block that was hashed.

    Raises:
        StepError: the weights are pickled, the architecture is not supported, a file is damaged, or config.json
            contradicts the weights.
    """
    names = _file_names(folder)
    check_files(names)
    config = read_config(folder)
    check_architecture(config)
    weights = read_weights(folder)
    check_config(config, weights)
    return Manifest(
        origin=origin,
        licence=_licence(folder),
        architecture=_architecture(config, weights),
        files=describe_files(folder, [name for name in names if is_allowed(name)], progress),
    )


def build_adapter_manifest(folder: Path, origin: Origin, base: Path) -> AdapterManifest:
    """Describe the LoRA adapter in a folder.

    Args:
        origin: where the folder's files come from.
        base: the folder of the checkpoint that the adapter is for.

    Raises:
        StepError: the adapter is damaged, or cannot be merged into the base.
    """
    facts = check_adapter(folder, base)
    names = [name for name in _file_names(folder) if is_allowed(name, ADAPTER_FILES)]
    return AdapterManifest(origin=origin, licence=_licence(folder), files=describe_files(folder, names), **vars(facts))


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


def _file_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def _architecture(config: dict[str, Any], weights: Weights) -> Architecture:
    """Return the facts of config.json and the headers.

    Raises:
        StepError: a field of config.json has a value of another type.
    """
    heads = config.get("num_attention_heads")
    scaling = config.get("rope_scaling") or {}
    try:
        return Architecture(
            architecture=config["architectures"][0],
            parameters=weights.parameters,
            dtype=weights.dtype,
            context_length=config.get("max_position_embeddings"),
            layers=config.get("num_hidden_layers"),
            hidden_size=config.get("hidden_size"),
            vocabulary=config.get("vocab_size"),
            attention_heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            rope=scaling.get("rope_type") or scaling.get("type") or "default",
            partial_rotary_factor=config.get("partial_rotary_factor") or 1.0,
            tied_embeddings=bool(config.get("tie_word_embeddings", False)),
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise StepError(
            f"config.json is damaged, field for {first['loc'][0]}: {first['msg']}: fetch or save the checkpoint again"
        ) from None


def _licence(folder: Path) -> str:
    """Return the licence that the model card states, else the first line of a licence file, else "not stated"."""
    card = folder / "README.md"
    if card.is_file():
        _, _, front_matter = card.read_text(encoding="utf-8", errors="replace").partition("---\n")
        if match := _LICENCE_FIELD.search(front_matter.partition("\n---")[0]):
            return match[1]
    for path in sorted(folder.glob("LICENSE*")):
        if lines := path.read_text(encoding="utf-8", errors="replace").strip().splitlines():
            return lines[0].strip()
    return "not stated"
