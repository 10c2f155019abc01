"""The state of a running process, saved again and again: each time only what is new is written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from threer.errors import RunError
from threer.io.atomic import os_errors_as_run_errors, remove_parts, replacing

FORMAT = 1
STATE = "state.json"
_TENSORS = ".safetensors"


@dataclass(frozen=True)
class _Place:
    """Where a tensor is stored. The axes of a stored tensor run from the largest stride to the smallest."""

    file: str
    key: str
    axes: list[int]
    device: str


class Snapshots:
    """The latest state in ``folder``: plain data in a JSON file, tensors in files beside it.

    A tensor that did not change since the last time is not written again, so tensors must not be changed in place.
    Files of which less than half is in use are written anew: no more than twice the state is on disk. The JSON file
    is replaced last, so that a state is there as a whole or not at all.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._places = WeakTensorKeyDictionary()
        self._bytes: Counter[str] = Counter()  # in each file
        self._number = 0

    def write(self, state: Any, tensors: Sequence[Tensor]) -> None:
        """Replace the state: ``state`` is anything that JSON holds, ``tensors`` belong to it. Raises `RunError`."""
        with os_errors_as_run_errors(self.folder):
            self.folder.mkdir(exist_ok=True)
        used = Counter[str]()
        for tensor in tensors:
            if tensor in self._places:
                used[self._places[tensor].file] += tensor.nbytes
        sparse = {file for file in used if 2 * used[file] < self._bytes[file]}
        self._append([t for t in tensors if t not in self._places or self._places[t].file in sparse])
        places = [self._places[tensor] for tensor in tensors]
        text = json.dumps({"format": FORMAT, "state": state, "tensors": [vars(place) for place in places]})
        with replacing(self.folder / STATE) as part:
            part.write_text(text, encoding="utf-8")
        self._remove_all_but({place.file for place in places})

    def _append(self, tensors: Sequence[Tensor]) -> None:
        if not tensors:
            return
        self._number += 1
        file = f"{self._number:06d}{_TENSORS}"
        stored = {}
        for k, tensor in enumerate(tensors):
            axes = sorted(range(tensor.ndim), key=tensor.stride, reverse=True)
            stored[str(k)] = tensor.detach().permute(axes).clone(memory_format=torch.contiguous_format).cpu()
            self._places[tensor] = _Place(file, str(k), axes, str(tensor.device))
            self._bytes[file] += tensor.nbytes
        with replacing(self.folder / file) as part:
            save_file(stored, part)

    def _remove_all_but(self, files: set[str]) -> None:
        with os_errors_as_run_errors(self.folder):
            for path in self.folder.glob(f"*{_TENSORS}"):
                if path.name not in files:
                    path.unlink(missing_ok=True)
                    del self._bytes[path.name]

    def read(self) -> tuple[Any, list[Tensor]] | None:
        """The latest state, or None if there is none. Tensors come back as they were, strides and device too.

        Raises `RunError` if it is damaged or from another version.
        """
        path = self.folder / STATE
        if not path.is_file():
            return None
        remove_parts(self.folder)
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            if saved["format"] != FORMAT:
                raise RunError(
                    f"{path} has format {saved['format']}, this version reads {FORMAT}; go on with the version of "
                    "threer that wrote it, or overwrite the run to start anew"
                )
            places = [_Place(**place) for place in saved["tensors"]]
            tensors = _read_tensors(self.folder, places)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise RunError(f"{path} is damaged ({error}): overwrite the run to start anew") from None
        self._number = max((int(place.file.removesuffix(_TENSORS)) for place in places), default=0)
        return saved["state"], tensors

    def clear(self) -> None:
        """Remove the state and the folder, unless someone else has put a file there. Raises `RunError`."""
        if not self.folder.is_dir():
            return
        remove_parts(self.folder)
        with os_errors_as_run_errors(self.folder):
            (self.folder / STATE).unlink(missing_ok=True)
        self._remove_all_but(set())
        with os_errors_as_run_errors(self.folder):
            if not any(self.folder.iterdir()):
                self.folder.rmdir()


def _read_tensors(folder: Path, places: Sequence[_Place]) -> list[Tensor]:
    files = {file: load_file(folder / file) for file in {place.file for place in places}}
    tensors = []
    for place in places:
        stored = files[place.file][place.key].clone()  # aligned like any other tensor
        original = [place.axes.index(axis) for axis in range(stored.ndim)]
        tensors.append(stored.permute(original).to(place.device))
    return tensors
