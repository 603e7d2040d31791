"""Where a model to build comes from: a path, or a repository on the Hugging Face Hub."""

from __future__ import annotations

from fnmatch import fnmatch
from functools import partial
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

from wszoo.errors import NotFoundError, RemoteError, UsageError
from wszoo.families.protocol import ChoosesFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wszoo.families.protocol import Family, SourceRequest
    from wszoo.progress import Progress

HUB = "hf:"
# Weights come as safetensors only: a pickle runs code when it is loaded.
_PATTERNS = ["*.json", "*.txt", "*.model", "*.jinja", "*.md", "*.safetensors", "*.onnx", "*.onnx_data", "*.onnx.data"]


def any_model(names: Sequence[str]) -> list[str]:
    """The files that a model may need, for families that do not choose."""
    return [name for name in names if any(fnmatch(name, pattern) for pattern in _PATTERNS)]


def chooser(family: Family, request: SourceRequest) -> Callable[[Sequence[str]], Sequence[str]]:
    """What chooses a repository's files for a family: the family itself if it can, else :func:`any_model`."""
    if isinstance(family, ChoosesFiles):
        return partial(family.choose_files, request=request)
    return any_model


def fetch_source(text: str, progress: Progress, choose: Callable[[Sequence[str]], Sequence[str]] = any_model) -> Path:
    """The local file or folder of a source; a Hub repository is downloaded, or taken from the Hub's own cache.

    Args:
        text: a path, or ``hf:ORG/REPO[@REVISION]``.
        progress: where to report.
        choose: gets the names of all files of a repository, and gives those that are needed.

    Raises:
        NotFoundError: no such path or repository, or none of its files is needed.
        RemoteError: the Hub cannot be reached.
        UsageError: not of the form ``hf:ORG/REPO[@REVISION]``.
    """
    if text.startswith(HUB):
        return _from_hub(text, progress, choose)
    path = Path(text)
    if not path.exists():
        raise NotFoundError(f"no such file or folder: {text}", hint="--source takes a path, or hf:ORG/REPO")
    return path


def _from_hub(text: str, progress: Progress, choose: Callable[[Sequence[str]], Sequence[str]]) -> Path:
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    repo, _, revision = text.removeprefix(HUB).partition("@")
    try:
        with progress.stage(f"download {repo}"):
            return _download(repo, revision or None, choose)
    except HFValidationError as error:
        raise UsageError(
            f"not a Hub repository: {text!r}", hint="write it as in hf:ORG/REPO or hf:ORG/REPO@REVISION"
        ) from error
    except RepositoryNotFoundError as error:
        raise NotFoundError(f"no such repository on the Hub: {repo}", hint="private ones need HF_TOKEN") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise RemoteError(
            f"cannot download {repo}: {error}", hint="check the network, or name a local folder"
        ) from error


def _download(repo: str, revision: str | None, choose: Callable[[Sequence[str]], Sequence[str]]) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        names = HfApi().list_repo_files(repo, revision=revision)
    except (HFValidationError, RepositoryNotFoundError, RevisionNotFoundError):
        raise
    except Exception:  # noqa: BLE001 - of two HTTP libraries, by version; the cache may have what the network has not
        return Path(snapshot_download(repo, revision=revision, local_files_only=True, allow_patterns=[]))
    chosen = [escape(name) for name in choose(names)]
    if not chosen:
        raise NotFoundError(
            f"the repository {repo} holds no file that could be used", hint="is it a model of this family?"
        )
    return Path(snapshot_download(repo, revision=revision, allow_patterns=chosen))
