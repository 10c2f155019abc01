"""Weights from the Hub: only when asked for, resumed when cut off, and checked when they came."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from threer.errors import CheckpointError
from threer.models.files import CONFIG, INDEX, holds_weights, sha256_of

FILES = (CONFIG, "*.safetensors", INDEX)


def download(repository: str, sha256: Mapping[str, str]) -> Path:
    """The folder that holds ``repository``; what is in the Hub's cache is not loaded again.

    sha256  known checksums by file name. Files without one are held against the checksum that the Hub announced.

    Raises CheckpointError: no network, offline mode, no such repository, a download cut off, or a file that is not
    what it should be.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = Path(huggingface_hub.snapshot_download(repository, allow_patterns=list(FILES)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        if huggingface_hub.constants.HF_HUB_OFFLINE:
            raise CheckpointError(
                f"{repository} is not on this disk, and offline mode (HF_HUB_OFFLINE) forbids downloading it"
            ) from None
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{repository} could not be downloaded: {reason}") from None
    if not holds_weights(folder):  # without a network the Hub's client gives back what it has, whole or not
        raise CheckpointError(
            f"{repository} is on this disk only in part, and the rest could not be downloaded: pull again when the "
            "network is back"
        )
    for path in sorted(folder.glob("*.safetensors")):
        expected = sha256.get(path.name) or _announced(path)
        if expected and sha256_of(path) != expected:
            raise CheckpointError(
                f"{path} is not what {repository} holds, its SHA-256 differs: remove {path.resolve()}, pull again"
            )
    return folder


def _announced(path: Path) -> str | None:
    """The checksum by which the Hub's cache names a large file; None where it does not (no links on this disk)."""
    name = path.resolve().name
    return name if path.is_symlink() and re.fullmatch(r"[0-9a-f]{64}", name) else None
