"""Fetch a checkpoint from a Hugging Face hub into the hub's own cache, pinned to a commit.

HF_TOKEN, HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE are huggingface_hub's own environment variables and mean what they
mean there. Nothing but an allow-list is fetched: no pickles, no Python.
"""

import fnmatch
import time
from collections.abc import Callable
from pathlib import Path

from steps.checkpoint.inspect import ALLOWED, check_architecture, check_files, read_config
from steps.disk import need_space
from steps.errors import StepError

_ATTEMPTS = 4  # a cut connection resumes where it stopped, so trying again is cheap


def resolve_commit(repo: str, revision: str) -> str:
    """The 40-hex commit that a branch, tag or commit of a repository names now.

    Without a connection, the commit that the cache last saw for that name.

    Raises:
        StepError: no such repository or revision, no access, or no connection and nothing cached.
    """
    from huggingface_hub import HfApi, constants

    cached = Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}" / "refs" / revision
    try:
        return _explained(repo, revision, lambda: HfApi().model_info(repo, revision=revision).sha)
    except NoConnection:
        if cached.is_file():
            return cached.read_text().strip()
        raise


def fetch(repo: str, commit: str, bar_class: type | None = None) -> tuple[Path, dict[str, str]]:
    """Bring the allowed files of a commit into the cache, config.json first, so that a refusal costs nothing.

    Args:
        bar_class: a tqdm class for the progress bars.

    Returns:
        The snapshot's folder, and the SHA-256 that the hub states for each file it keeps in LFS.

    Raises:
        StepError: as resolve_commit; or the checkpoint is refused; or the disk is too small.
    """
    from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download

    def info():
        return HfApi().model_info(repo, revision=commit, files_metadata=True)

    def download():
        return snapshot_download(
            repo, revision=commit, allow_patterns=list(ALLOWED), ignore_patterns=["*/*"], tqdm_class=bar_class
        )

    try:
        files = {file.rfilename: file for file in _explained(repo, commit, info).siblings}
    except NoConnection:  # everything may be here already
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            return Path(snapshot_download(repo, revision=commit, local_files_only=True)), {}
        except LocalEntryNotFoundError:
            raise NoConnection(_no_connection(repo)) from None
    check_files(files)
    config = _explained(repo, commit, lambda: hf_hub_download(repo, "config.json", revision=commit))
    check_architecture(read_config(Path(config).parent))
    wanted = [file for name, file in files.items() if is_allowed(name)]
    cache = Path(constants.HF_HUB_CACHE)
    blobs = cache / f"models--{repo.replace('/', '--')}" / "blobs"
    missing = [f.size or 0 for f in wanted if not (blobs / (f.lfs.sha256 if f.lfs else f.blob_id or "-")).exists()]
    need_space(f"downloading {repo}", [(cache, sum(missing))])
    folder = Path(_explained(repo, commit, download))
    return folder, {file.rfilename: file.lfs.sha256 for file in wanted if file.lfs}


def is_allowed(name: str) -> bool:
    """Whether a file at the top of a checkpoint is one that this project reads."""
    return "/" not in name and any(fnmatch.fnmatchcase(name, pattern) for pattern in ALLOWED)


class NoConnection(StepError):
    """The hub could not be reached."""


def _no_connection(repo: str) -> str:
    return (
        f"the hub cannot be reached for {repo} and its files are not all in the cache: check the network (HF_ENDPOINT "
        "names a mirror), or give a local folder as the source"
    )


def _explained(repo: str, revision: str, call: Callable):
    """`call()`, tried again when the connection breaks; the hub's errors as one line each."""
    import requests
    from huggingface_hub import errors

    at = f"{repo} at revision {revision!r}"
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return call()
        except errors.GatedRepoError:
            raise StepError(
                f"{repo} is gated: accept its licence on the hub's page, then set HF_TOKEN to a token of that account"
            ) from None
        except errors.RevisionNotFoundError:
            raise StepError(f"{at}: no such branch, tag or commit; give one that the repository has") from None
        except errors.RepositoryNotFoundError:
            raise StepError(
                f"{repo}: the hub knows no such repository, or it is private: check owner/name, "
                "and set HF_TOKEN if it is private"
            ) from None
        except errors.EntryNotFoundError as error:
            if isinstance(error, errors.LocalEntryNotFoundError):
                raise NoConnection(_no_connection(repo)) from None
            raise StepError(f"{at} has no config.json: it is not a transformers checkpoint") from None
        except (errors.HfHubHTTPError, requests.RequestException, errors.OfflineModeIsEnabled, OSError) as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            if status in (401, 403):
                raise StepError(f"{repo}: the hub refused access ({status}): check that HF_TOKEN is valid") from None
            broken = isinstance(error, requests.RequestException) and (status is None or status >= 500)
            if broken and attempt < _ATTEMPTS and not isinstance(error, errors.OfflineModeIsEnabled):
                time.sleep(0.5 * 2**attempt)
                continue
            if status is not None:
                raise StepError(f"{repo}: the hub answered {status} {attempt} times: try again later") from None
            if broken or isinstance(error, ConnectionError | errors.OfflineModeIsEnabled):
                raise NoConnection(_no_connection(repo)) from None
            raise
