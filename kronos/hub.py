"""Files of a checkpoint from the Hugging Face hub or its cache: all of one commit, compared with their sha256."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

OFFLINE = "HF_HUB_OFFLINE"  # huggingface_hub's own variable; `--offline` of the command line sets it

_log = logging.getLogger(__name__)
_COMMIT, _SHA256 = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{64}")


class HubOptions(NamedTuple):
    """Options of a download from the Hugging Face hub, as in huggingface_hub.

    Attributes:
        cache_dir: cache of downloads; None uses that of `HF_HOME`.
        local_files_only: use the cache only, without network access.
        token: access token for private repositories; None uses that of `hf auth login`.
        force_download: download even if the file is in the cache.
    """

    cache_dir: str | Path | None = None
    local_files_only: bool = False
    token: str | bool | None = None
    force_download: bool = False


HUB = HubOptions()  # defaults of the environment


def is_offline() -> bool:
    """Whether the environment forbids downloads: `HF_HUB_OFFLINE`, read now and not when a package is imported."""
    return os.environ.get(OFFLINE, "").strip().upper() in {"1", "ON", "YES", "TRUE"}


def download_checkpoint(repo: str, revision: str | None, names: Sequence[str], hub: HubOptions) -> Path:
    """The folder of the cache with files of one commit.

    Args:
        repo: hub id.
        revision: commit, branch or tag; None is the main branch.
        names: files that the folder must have.
        hub: download options; `HF_HUB_OFFLINE` also allows the cache only.

    Returns:
        `.../snapshots/<commit>`: the name of the folder is the commit.

    Raises:
        FileNotFoundError: the hub or the cache has no such file; gives the reason in one line.
        ValueError: a file is not what the hub has under its sha256.
    """
    # Imported here, so that bundled and local checkpoints load without the hub client.
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    off = hub.local_files_only or is_offline() or constants.HF_HUB_OFFLINE
    options = hub._replace(local_files_only=off, force_download=hub.force_download and not off)
    commit = revision
    try:
        for name in names:
            # After the first file by commit: a branch may move between two downloads.
            path = Path(hf_hub_download(repo, name, revision=commit, **options._asdict()))
            commit = path.parent.name
            _check_content(path)
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        where = f" at revision {revision}" if revision else ""
        cache = hub.cache_dir or constants.HF_HUB_CACHE
        reason = str(error).strip().partition("\n")[0]
        if off and isinstance(error, LocalEntryNotFoundError):
            reason = (
                f"not in the cache {cache}, and downloads are off: --offline, {OFFLINE} or local_files_only"
            )
        raise FileNotFoundError(f"No checkpoint '{repo}'{where} ({reason}).") from error
    if revision is None or not _COMMIT.fullmatch(revision):
        _log.info("%s is at commit %s of %s. Set this revision to keep it.", repo, commit, revision or "main")
    return path.parent


def _check_content(path: Path) -> None:
    """Compare a file of the cache with the sha256 that the hub gave for it, which is the name of its blob."""
    blob = path.resolve()
    if not _SHA256.fullmatch(blob.name):
        return  # small files are named by git's hash, and where links are not possible files have their own name
    state = blob.stat()
    if _known_hash(blob, state.st_mtime_ns, state.st_size) != blob.name:
        raise ValueError(
            f"{path} is damaged: its sha256 is not {blob.name[:16]}..., which the hub gave. Delete {blob} and load "
            "the checkpoint again."
        )


@lru_cache(maxsize=64)
def _known_hash(path: Path, changed: int, size: int) -> str:
    """`hash_file`, computed once for each state of a file."""
    return hash_file(path)


def hash_file(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
