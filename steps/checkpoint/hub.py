"""Fetch a checkpoint from a Hugging Face hub into the hub's own cache, pinned to a commit.

HF_TOKEN, HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE are huggingface_hub's own environment variables and mean what they
mean there. Nothing but an allow-list is fetched: no pickles, no Python.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from steps.checkpoint.adapter import ADAPTER_FILES, check_adapter_files, read_adapter_config
from steps.checkpoint.checks import ADAPTER_CONFIG, ALLOWED, check_architecture, check_files, is_allowed
from steps.checkpoint.headers import read_config
from steps.common.disk import need_space
from steps.common.errors import StepError

_TRIES = 10
_CONFIG = "config.json"


def resolve_commit(repo: str, revision: str, adapter: bool = False) -> str:
    """The 40-hex commit that a branch, tag or commit of a repository names now.

    Without a connection, the commit that the cache last saw for that name.

    Raises:
        StepError: no such repository or revision, no access, or no connection and nothing cached.
    """
    return _config(repo, revision, ADAPTER_CONFIG if adapter else _CONFIG, online=_reachable()).parent.name


@dataclass(frozen=True)
class Fetched:
    """A folder on this machine, and the SHA-256 (hex) that the hub states for a file, by file name.

    The hub states it only for files in LFS. There is none for a folder that is not from a hub.
    """

    folder: Path
    stated: dict[str, str] = field(default_factory=dict)


def fetch(repo: str, commit: str, bar_class: type | None = None, adapter: bool = False) -> Fetched:
    """Bring the allowed files of a commit into the cache, its config first, so that a refusal costs nothing.

    Args:
        bar_class: a tqdm class for the progress bars.
        adapter: whether a PEFT adapter is wanted and not a checkpoint.

    Returns:
        The snapshot's folder, and the SHA-256 that the hub states for each file it keeps in LFS.

    Raises:
        StepError: as resolve_commit; or the checkpoint is refused; or the disk is too small.
    """
    from huggingface_hub import HfApi, constants, snapshot_download

    online = _reachable()
    if adapter:
        read_adapter_config(_config(repo, commit, ADAPTER_CONFIG, online).parent)
    else:
        check_architecture(read_config(_config(repo, commit, _CONFIG, online).parent))
    if not online:  # everything may be here already
        cached = _explained(repo, commit, lambda: snapshot_download(repo, revision=commit, local_files_only=True))
        return Fetched(Path(cached))
    info = _explained(repo, commit, lambda: HfApi().model_info(repo, revision=commit, files_metadata=True))
    files = {file.rfilename: file for file in info.siblings}
    (check_adapter_files if adapter else check_files)(files)
    wanted = [file for name, file in files.items() if is_allowed(name, ADAPTER_FILES if adapter else ALLOWED)]
    cache = Path(constants.HF_HUB_CACHE)
    blobs = cache / f"models--{repo.replace('/', '--')}" / "blobs"
    missing = [f.size or 0 for f in wanted if not (blobs / (f.lfs.sha256 if f.lfs else f.blob_id or "-")).exists()]
    need_space(f"downloading {repo}", [(cache, sum(missing))])
    folder = _explained(repo, commit, lambda: _download(repo, commit, [file.rfilename for file in wanted], bar_class))
    return Fetched(folder, {file.rfilename: file.lfs.sha256 for file in wanted if file.lfs})


def _download(repo: str, commit: str, names: list[str], bar_class: type | None) -> Path:
    """The client gives up where a connection is cut in the middle of a file; the next try resumes there."""
    from huggingface_hub import snapshot_download
    from requests.exceptions import ChunkedEncodingError

    for tries_left in reversed(range(_TRIES)):
        try:
            return Path(snapshot_download(repo, revision=commit, allow_patterns=names, tqdm_class=bar_class))
        except ChunkedEncodingError:
            if not tries_left:
                raise
            time.sleep(1)


def _config(repo: str, revision: str, name: str, online: bool) -> Path:
    """The config in the cache; the client resolves the revision and remembers what it named."""
    from huggingface_hub import hf_hub_download

    return Path(
        _explained(
            repo, revision, lambda: hf_hub_download(repo, name, revision=revision, local_files_only=not online), name
        )
    )


def _reachable() -> bool:
    """Whether anybody answers at the hub's address; left to itself, the client tries for 24 seconds."""
    import requests
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        requests.head(constants.ENDPOINT, timeout=10)
    except requests.RequestException:
        return False
    return True


def stay_offline() -> None:
    """Keep libraries of this process from asking a hub, whether they have read their settings already or not."""
    from huggingface_hub import constants

    os.environ["HF_HUB_OFFLINE"] = "1"
    constants.HF_HUB_OFFLINE = True


def _explained(repo: str, revision: str, call: Callable, wanted: str = _CONFIG):
    """`call()`, with the hub's errors as one line each. The client tries again, and resumes, by itself.

    Raises:
        StepError: see the lines.
    """
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
    except errors.EntryNotFoundError as error:
        if isinstance(error, errors.LocalEntryNotFoundError):  # the client's word for any failure to reach the hub
            reason = _no_answer(repo, error.__cause__)
        else:
            what = "a PEFT adapter" if wanted == ADAPTER_CONFIG else "a transformers checkpoint"
            reason = f"{repo} at revision {revision!r} has no {wanted}: it is not {what}"
    except (requests.RequestException, errors.OfflineModeIsEnabled) as error:
        reason = _no_answer(repo, error)
    raise StepError(reason)


def _no_answer(repo: str, error: BaseException | None) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f"{repo}: the hub refused access ({status}): check that HF_TOKEN is valid"
    if status is not None:
        return f"{repo}: the hub answered {status}, again and again: try later"
    return (
        f"the hub cannot be reached for {repo} and its files are not all in the cache: check the network (HF_ENDPOINT "
        "names a mirror), or give a local folder in its place"
    )
