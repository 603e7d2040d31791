"""Where a model to build comes from: a path, or a repository on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from wszoo.errors import NotFoundError, RemoteError, UsageError

if TYPE_CHECKING:
    from wszoo.progress import Progress

HUB = "hf:"
# Weights come as safetensors only: a pickle runs code when it is loaded.
_PATTERNS = ["*.json", "*.txt", "*.model", "*.jinja", "*.md", "*.safetensors", "*.onnx", "*.onnx_data", "*.onnx.data"]


def fetch_source(text: str, progress: Progress) -> Path:
    """The local file or folder of a source; a Hub repository is downloaded, or taken from the Hub's own cache.

    Raises:
        NotFoundError: no such path or repository.
        RemoteError: the Hub cannot be reached.
        UsageError: not of the form ``hf:ORG/REPO[@REVISION]``.
    """
    if text.startswith(HUB):
        return _from_hub(text, progress)
    path = Path(text)
    if not path.exists():
        raise NotFoundError(f"no such file or folder: {text}", hint="--source takes a path, or hf:ORG/REPO")
    return path


def _from_hub(text: str, progress: Progress) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    repo, _, revision = text.removeprefix(HUB).partition("@")
    try:
        with progress.stage(f"download {repo}"):
            return Path(snapshot_download(repo, revision=revision or None, allow_patterns=_PATTERNS))
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
