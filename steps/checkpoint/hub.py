"""Fetch a checkpoint or an adapter from a Hugging Face hub into the hub's own cache, pinned to a commit.

The environment variables HF_TOKEN, HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE belong to huggingface_hub and work as its
documentation says. Only files of an allow-list are fetched: no pickles, no Python.
"""

import os
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from steps.checkpoint.adapter import ADAPTER_FILES, ADAPTER_WEIGHTS, check_adapter_files, read_adapter_config
from steps.checkpoint.checks import ADAPTER_CONFIG, ALLOWED, check_files, check_usable, is_allowed
from steps.checkpoint.describe import check_settings
from steps.checkpoint.headers import read_config, weight_names
from steps.common.disk import need_space
from steps.common.errors import StepError

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

_TRIES = 10  # downloads of one repository; each try resumes where the last one was cut
_RETRY_S = 1
_REACHABLE_TIMEOUT_S = 10

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Fetched:
    """A folder on this machine, and the SHA-256 (hex) that the hub states for a file, by file name.

    The hub states the SHA-256 of files in LFS only. `stated` is empty for a folder that is not from a hub.
    """

    folder: Path
    stated: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Kind:
    """What a repository is expected to hold, and how it is checked before its weights are downloaded.

    Each check takes the folder of the files that are here by then.
    """

    noun: str
    config: str
    patterns: tuple[str, ...]
    check_names: Callable[[Iterable[str]], object]
    check_config: Callable[[Path], object]  # the config alone is here
    check_settings: Callable[[Path], object]  # all files but the weights are here
    weights: Callable[[Path, Collection[str]], tuple[str, ...]]  # (folder, all names) -> the files that hold weights


_CHECKPOINT = _Kind(
    "a transformers checkpoint",
    "config.json",
    ALLOWED,
    check_files,
    lambda folder: check_usable(read_config(folder)),
    check_settings,
    weight_names,
)
_ADAPTER = _Kind(
    "a PEFT adapter",
    ADAPTER_CONFIG,
    ADAPTER_FILES,
    check_adapter_files,
    read_adapter_config,
    read_adapter_config,
    lambda folder, names: (ADAPTER_WEIGHTS,),
)


def resolve_commit(repo: str, revision: str, adapter: bool = False) -> str:
    """Return the commit, 40 hex digits, that a branch, tag or commit of a repository names now.

    Without a connection, return the commit that the cache saw last for this name.

    Args:
        adapter: whether the repository is expected to hold an adapter.

    Raises:
        StepError: the repository or revision does not exist or is not accessible, or the hub cannot be reached and
            the cache does not have it.
    """
    return _fetch_config(repo, revision, _ADAPTER if adapter else _CHECKPOINT, online=_reachable()).parent.name


def fetch(repo: str, commit: str, bar_class: type | None = None, adapter: bool = False) -> Fetched:
    """Bring the allowed files of a commit into the cache.

    The config comes first, then all other files but the weights, then the weights that the index lists. Each part is
    checked before the next is fetched, so that a repository that cannot be used costs no download, and no stale file
    of weights is fetched.

    Args:
        bar_class: a tqdm class for the progress bars.
        adapter: whether the repository is expected to hold an adapter.

    Raises:
        StepError: as in `resolve_commit`; or the checkpoint or adapter cannot be used; or the disk is too small.
    """
    from huggingface_hub import HfApi, snapshot_download

    kind = _ADAPTER if adapter else _CHECKPOINT
    online = _reachable()
    kind.check_config(_fetch_config(repo, commit, kind, online).parent)
    if not online:  # everything may be in the cache
        cached = _explain(repo, commit, kind, lambda: snapshot_download(repo, revision=commit, local_files_only=True))
        return Fetched(Path(cached))
    info = _explain(repo, commit, kind, lambda: HfApi().model_info(repo, revision=commit, files_metadata=True))
    files = {file.rfilename: file for file in info.siblings or [] if is_allowed(file.rfilename, kind.patterns)}
    kind.check_names(file.rfilename for file in info.siblings or [])
    small = [name for name in files if not name.endswith(".safetensors")]
    folder = _explain(repo, commit, kind, lambda: _download(repo, commit, small, bar_class))
    kind.check_settings(folder)
    weights = kind.weights(folder, files)
    _need_space(repo, [files[name] for name in weights])
    folder = _explain(repo, commit, kind, lambda: _download(repo, commit, [*small, *weights], bar_class))
    return Fetched(folder, {name: lfs.sha256 for name in [*small, *weights] if (lfs := files[name].lfs)})


def read_hub_config(repo: str, commit: str) -> dict[str, Any]:
    """Return config.json of a checkpoint in a hub's repository. No other file is fetched.

    Raises:
        StepError: as in `resolve_commit`, or the file is damaged.
    """
    return read_config(_fetch_config(repo, commit, _CHECKPOINT, online=_reachable()).parent)


def stay_offline() -> None:
    """Keep all libraries of this process from asking a hub.

    huggingface_hub reads the environment variable at import, so its constant is set too.
    """
    from huggingface_hub import constants

    os.environ["HF_HUB_OFFLINE"] = "1"
    constants.HF_HUB_OFFLINE = True


def _need_space(repo: str, files: "Iterable[RepoSibling]") -> None:
    """Raise StepError if the cache's disk is too small for the files that the cache lacks."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    blobs = cache / f"models--{repo.replace('/', '--')}" / "blobs"
    missing = [
        file.size or 0
        for file in files
        if not (blobs / (file.lfs.sha256 if file.lfs else file.blob_id or "-")).exists()
    ]
    need_space(f"downloading {repo}", [(cache, sum(missing))])


def _download(repo: str, commit: str, names: list[str], bar_class: type | None) -> Path:
    """Download files. Try again if the connection is cut in the middle of a file, where huggingface_hub gives up."""
    from huggingface_hub import snapshot_download
    from requests.exceptions import ChunkedEncodingError

    for _ in range(_TRIES - 1):
        try:
            return Path(snapshot_download(repo, revision=commit, allow_patterns=names, tqdm_class=bar_class))
        except ChunkedEncodingError:
            time.sleep(_RETRY_S)
    return Path(snapshot_download(repo, revision=commit, allow_patterns=names, tqdm_class=bar_class))


def _fetch_config(repo: str, revision: str, kind: _Kind, online: bool) -> Path:
    """Return the config's path in the cache. Its folder is named after the commit that the revision names."""
    from huggingface_hub import hf_hub_download

    path = _explain(
        repo,
        revision,
        kind,
        lambda: hf_hub_download(repo, kind.config, revision=revision, local_files_only=not online),
    )
    return Path(path)


def _reachable() -> bool:
    """Return whether the hub answers. huggingface_hub alone would try for 24 seconds before it uses its cache."""
    import requests
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        requests.head(constants.ENDPOINT, timeout=_REACHABLE_TIMEOUT_S)
    except requests.RequestException:
        return False
    return True


def _explain(repo: str, revision: str, kind: _Kind, call: Callable[[], _Result]) -> _Result:
    """Return the result of `call`. Raise each error of the hub as a StepError of one line."""
    import requests
    from huggingface_hub import errors

    try:
        return call()
    except errors.GatedRepoError:
        reason = f"{repo} is gated: accept its licence on the hub's page, then set HF_TOKEN to a token of that account"
    except errors.RevisionNotFoundError:
        reason = f"{repo} at revision {revision!r}: no such branch, tag or commit; give one that the repository has"
    except errors.RepositoryNotFoundError:
        reason = (
            f"{repo}: the hub knows no such repository, or it is private: check owner/name, "
            "and set HF_TOKEN if it is private"
        )
    except errors.LocalEntryNotFoundError as error:  # any failure to reach the hub, when the file is not in the cache
        reason = _no_answer(repo, error.__cause__)
    except errors.EntryNotFoundError:
        reason = f"{repo} at revision {revision!r} has no {kind.config}: it is not {kind.noun}"
    except (requests.RequestException, errors.OfflineModeIsEnabled) as error:
        reason = _no_answer(repo, error)
    raise StepError(reason)


def _no_answer(repo: str, error: BaseException | None) -> str:
    """Return why the hub did not give a repository, in words."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f"{repo}: the hub refused access ({status}): check that HF_TOKEN is valid"
    if status is not None:
        return f"{repo}: the hub answered {status} to every try: try later"
    return (
        f"the hub cannot be reached for {repo} and its files are not all in the cache: check the network (HF_ENDPOINT "
        "names a mirror), or give a local folder instead"
    )
