"""What the operating system says about a weight file, in one plain line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from threer.errors import CheckpointError


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn an `OSError` about ``path``, or about what lies in it, into a CheckpointError that names the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise CheckpointError(f"{error.filename or path} is missing; copy the weights again, whole") from None
    except PermissionError as error:
        raise CheckpointError(
            f"no permission to read {error.filename or path}; change the rights of the file or of its folder"
        ) from None
    except OSError as error:
        raise CheckpointError(f"cannot read {error.filename or path}: {error.strerror or error}") from None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error about writing ``path`` into a CheckpointError that names it."""
    try:
        yield
    except (OSError, SafetensorError) as error:  # safetensors has its own word for a full disk
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"cannot write {path}: {reason}; choose another place") from None
