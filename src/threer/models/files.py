"""Reading weight files and folders, with one clear line for each way in which they can be wrong."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from threer.errors import CheckpointError
from threer.models.access import reading
from threer.models.unpickle import constructor_text, parse_constructor, read_pickle

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ENCODER = "encoder.safetensors"
_HEADER, _ENTRY = 1024, 256  # bytes of a safetensors header, and of a tensor's entry in it: generous


@dataclass(frozen=True, eq=False)
class Contents:
    """What a weight file or a Hub folder holds: tensors by name, constructor arguments if it names any."""

    path: Path
    tensors: Mapping[str, Tensor]
    arguments: Mapping[str, Any]


def read_weights(path: Path) -> Contents:
    """A `.safetensors` or PyTorch file, or a folder with `config.json` and safetensors, sharded or not.

    Raises CheckpointError when it is missing, truncated, foreign or unsafe to read.
    """
    with reading(path):
        if path.is_dir():
            arguments = read_json(path / CONFIG) if (path / CONFIG).is_file() else {}
            if (path / INDEX).is_file() and not (path / WEIGHTS).is_file():
                tensors = _read_shards(path)
            elif (path / WEIGHTS).is_file() or "threer" in arguments:
                tensors = read_safetensors(path / WEIGHTS)
            else:
                raise CheckpointError(f"{path} holds neither {WEIGHTS} nor {INDEX}")
            return Contents(path, tensors | _read_encoder(path, arguments), arguments)
        if not path.is_file():
            raise CheckpointError(f"no such file or folder: {path}")
        with path.open("rb") as file:
            start = file.read(24)
        if start.startswith(b"version https://git-lfs"):
            raise CheckpointError(f"{path} is a Git LFS pointer, not the weights; fetch the file itself")
        if path.suffix == ".safetensors" or start[8:9] == b"{":
            return Contents(path, read_safetensors(path), {})
        if start.startswith(b"PK") or start.startswith(b"\x80"):
            return _read_pth(path)
        raise CheckpointError(f"{path} is neither a safetensors nor a PyTorch file ({path.stat().st_size:,} bytes)")


def holds_weights(folder: Path) -> bool:
    """Whether all weight files of a Hub folder are there: the one, or each that the index names."""
    if (folder / WEIGHTS).is_file():
        return True
    return (folder / INDEX).is_file() and all((folder / shard).is_file() for shard in _shards(folder))


def write_shards(tensors: Mapping[str, Tensor], folder: Path, most: int | None) -> list[str]:
    """Write ``tensors`` into ``folder`` as one file, or as files of at most ``most`` bytes each with an index.

    A tensor that is larger alone gets a file of its own. The names of the files are returned, the index last.
    """
    if most is None or sum(_bytes(t) for t in tensors.values()) + _HEADER <= most:
        save_file(dict(tensors), folder / WEIGHTS)
        return [WEIGHTS]
    shards: list[dict[str, Tensor]] = [{}]
    filled = _HEADER
    for name, tensor in tensors.items():
        if shards[-1] and filled + _bytes(tensor) > most:
            shards.append({})
            filled = _HEADER
        shards[-1][name] = tensor
        filled += _bytes(tensor)
    places: dict[str, str] = {}
    files = []
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, folder / file)
        places |= dict.fromkeys(shard, file)
        files.append(file)
    index = {"metadata": {"total_size": sum(_bytes(t) for t in tensors.values())}, "weight_map": places}
    (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    return [*files, INDEX]


def _read_encoder(folder: Path, settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The encoder that a checkpoint in our own format has in a file by itself, perhaps another checkpoint's."""
    place = settings.get("encoder") if "threer" in settings else None
    if place is None:
        return {}
    if not isinstance(place, dict) or not all(isinstance(place.get(key), str) for key in ("file", "prefix")):
        raise CheckpointError(f'{folder / CONFIG}: "encoder" must name a file and a prefix; copy it again, whole')
    file = folder / place["file"]
    if not file.is_file():
        raise CheckpointError(f"{folder} shares the encoder in {file}, which is not there; keep both side by side")
    return {place["prefix"] + name: tensor for name, tensor in read_safetensors(file).items()}


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size() + _ENTRY


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file. Raises CheckpointError with the byte counts when it is cut off."""
    with reading(path), path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        header_size = int.from_bytes(file.read(8), "little")
        if size < 8 or 8 + header_size > size:
            raise CheckpointError(
                f"{path} is truncated or not a safetensors file: its header needs {8 + header_size:,} bytes, "
                f"{size:,} are there"
            )
        text = file.read(header_size)
    try:
        header = json.loads(text)
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        expected = 8 + header_size + max(ends, default=0)
        if expected != size:
            word = "truncated" if size < expected else "damaged"
            raise CheckpointError(f"{path} is {word}: its header announces {expected:,} bytes, {size:,} are there")
        with reading(path):
            return load_file(path)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is not a safetensors file: {error} ({size:,} bytes)") from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; Infinity is allowed, as the Hub's model mixin writes it."""
    try:
        with reading(path):
            loaded = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not a JSON file: {error}") from None
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path} is not a JSON object")
    return loaded


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_shards(folder: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    shards = _shards(folder)
    for shard in sorted(shards):
        if not (folder / shard).is_file():
            raise CheckpointError(f"{folder} is incomplete: {shard}, named in {INDEX}, is missing")
        tensors |= read_safetensors(folder / shard)
    absent = [name for names in shards.values() for name in names if name not in tensors]
    if absent:
        raise CheckpointError(f"{folder}: {INDEX} promises tensor {absent[0]}, its file does not hold it")
    return tensors


def _shards(folder: Path) -> dict[str, list[str]]:
    """The files that the index names, and the tensors in each."""
    index = read_json(folder / INDEX).get("weight_map")
    if not isinstance(index, dict):
        raise CheckpointError(f"{folder / INDEX} has no weight_map")
    shards: dict[str, list[str]] = {}
    for name, shard in index.items():
        shards.setdefault(str(shard), []).append(name)
    return shards


def _read_pth(path: Path) -> Contents:
    contents = read_pickle(path)
    if not isinstance(contents, dict):
        raise CheckpointError(f"{path} holds a {type(contents).__name__}, not weights")
    tensors = contents.get("model", contents.get("state_dict", contents))
    if not isinstance(tensors, dict) or not tensors:
        raise CheckpointError(f"{path} holds no weights")
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise CheckpointError(f"{path}: entry {name} is a {type(tensor).__name__}, not a tensor")
    text = constructor_text(contents)
    return Contents(path, tensors, parse_constructor(text)[1] if text else {})
