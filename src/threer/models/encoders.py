"""An encoder in a file by itself, which several checkpoints of our own format share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from threer.errors import CheckpointError
from threer.models.files import read_safetensors
from threer.models.slam3r import SLAM3R


def encoder_prefix(model: nn.Module) -> str:
    """What the names of the encoder's tensors begin with, before ``encoder.`` and ``encoder_norm.``."""
    return "i2p." if isinstance(model, SLAM3R) else ""


def encoder_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The encoder's among ``tensors``, without ``prefix``."""
    wanted = (f"{prefix}encoder.", f"{prefix}encoder_norm.")
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(wanted)}


def set_apart(tensors: Mapping[str, Tensor], file: Path, prefix: str) -> dict[str, Tensor]:
    """``tensors`` without the encoder's, which are in ``file`` from now on, if they were not before."""
    encoder = encoder_of(tensors, prefix)
    if not file.is_file():
        save_file(encoder, file)
    elif not same_tensors(encoder, read_safetensors(file)):
        raise CheckpointError(f"{file} holds another encoder; train on with that one frozen, or save without it")
    return {name: t for name, t in tensors.items() if name.removeprefix(prefix) not in encoder}


def same_tensors(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Whether both hold the same values under the same names."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
