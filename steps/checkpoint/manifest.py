"""The manifest of a checkpoint, or an adapter: its files with sizes and SHA-256, its licence, and its facts."""

import hashlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal

from steps.checkpoint.adapter import ADAPTER_FILES, check_adapter
from steps.checkpoint.headers import architecture_facts, check_architecture, check_files, read_config, read_weights
from steps.checkpoint.hub import is_allowed
from steps.common.documents import Document, Part
from steps.common.errors import StepError
from steps.common.hashing import FileEntry

FORMAT = 1


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
    files: tuple[FileEntry, ...]


class Manifest(Document):
    """The whole of checkpoint/manifest.json."""

    written_by: ClassVar[str] = "fetch_model"
    schema_version: Literal[2] = 2
    origin: Origin
    licence: str
    architecture: Architecture
    files: tuple[FileEntry, ...]
    adapter: AdapterManifest | None = None


_LICENCE_FIELD = re.compile(r"^license:\s*(\S+)", re.MULTILINE)


def build_manifest(folder: Path, progress: Callable[[int], object] = lambda count: None) -> dict[str, Any]:
    """Describe the checkpoint in a folder; refuse what may not be used.

    Args:
        progress: told the number of bytes hashed, as they are.

    Raises:
        StepError: pickled weights, a foreign architecture, a broken file, or a config that contradicts the weights.
    """
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    check_files(names)
    config = read_config(folder)
    check_architecture(config)
    facts = architecture_facts(config, read_weights(folder))
    files = describe_files(folder, [name for name in names if is_allowed(name)], progress)
    return {"format": FORMAT, "licence": _licence(folder), "architecture": facts, "files": files}


def build_adapter_manifest(folder: Path, base: Path) -> dict[str, Any]:
    """Describe the adapter in a folder; refuse one that cannot be merged into the checkpoint in the folder `base`.

    Raises:
        StepError: see adapter.check_adapter.
    """
    facts = check_adapter(folder, base)
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and is_allowed(path.name, ADAPTER_FILES))
    return {"format": FORMAT, "licence": _licence(folder), **facts, "files": describe_files(folder, names)}


def describe_files(
    folder: Path, names: Iterable[str], progress: Callable[[int], object] = lambda count: None
) -> list[dict[str, Any]]:
    """Path, size in bytes and SHA-256 of files of a folder."""
    return [
        {"path": name, "size": (folder / name).stat().st_size, "sha256": sha256(folder / name, progress)}
        for name in names
    ]


def verify(folder: Path, manifest: dict[str, Any], progress: Callable[[int], object] = lambda count: None) -> None:
    """Check every file of the manifest, a checkpoint's or an adapter's, sizes first.

    Raises:
        StepError: naming the first file that is missing or different, or the manifest is not one.
    """
    try:
        files = [(folder / entry["path"], int(entry["size"]), entry["sha256"]) for entry in manifest["files"]]
        if manifest["format"] != FORMAT or not files:
            raise ValueError("unknown format")
    except (KeyError, TypeError, ValueError) as error:
        raise StepError(f"checkpoint/manifest.json is damaged ({error!r}): run fetch_model again") from None
    for path, size, _ in files:
        if not path.is_file():
            raise StepError(f"{path.name} is missing in {folder}: run fetch_model again")
        if path.stat().st_size != size:
            raise StepError(
                f"{path.name} in {folder} has {path.stat().st_size} bytes, the manifest says {size}: "
                "the file has changed since; run fetch_model again"
            )
    for path, _, expected in files:
        if sha256(path, progress) != expected:
            raise StepError(
                f"{path.name} in {folder} does not have the SHA-256 that the manifest states: it has changed or is "
                f"damaged; run fetch_model again, after deleting {path.resolve()} if that is the hub's cache"
            )


def sha256(path: Path, progress: Callable[[int], object] = lambda count: None) -> str:
    """SHA-256 of a file, hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(8 << 20):
            digest.update(block)
            progress(len(block))
    return digest.hexdigest()


def total_size(manifest: dict[str, Any]) -> int:
    """Bytes of all the files of a checkpoint."""
    return sum(entry["size"] for entry in manifest["files"])


def _licence(folder: Path) -> str:
    """The licence that the model card states, else the first line of a licence file, else 'not stated'."""
    card = folder / "README.md"
    if card.is_file():
        _, _, rest = card.read_text(encoding="utf-8", errors="replace").partition("---\n")
        if found := _LICENCE_FIELD.search(rest.partition("\n---")[0]):
            return found[1]
    for path in sorted(folder.glob("LICENSE*")):
        if lines := path.read_text(encoding="utf-8", errors="replace").strip().splitlines():
            return lines[0].strip()
    return "not stated"
