"""Weights by name. A new model is one file and one line in `PUBLISHED`.

A plain name ("slam3r") means the published checkpoint if it is on this disk, else the packaged one of the same
family; ``name@hub`` downloads. Nothing is downloaded otherwise.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from threer.errors import CheckpointError
from threer.models.access import reading
from threer.models.checkpoints import Model, load_checkpoint, load_path, load_published, load_slam3r, read_card
from threer.models.cut3r import CUT3R
from threer.models.device import find_device
from threer.models.download import download
from threer.models.dust3r import DUSt3R
from threer.models.fast3r import Fast3R
from threer.models.files import CONFIG, INDEX, WEIGHTS, holds_weights
from threer.types import Checkpoint

FOLDER_VARIABLE = "THREER_WEIGHTS"

PUBLISHED = {
    "slam3r": Checkpoint(
        "slam3r",
        "slam3r",
        ("siyan824/slam3r_i2p", "siyan824/slam3r_l2w"),
        "CC-BY-NC-SA-4.0",
        description="SLAM3R as published: 224 pixels, ViT-Large",
    ),
    "dust3r": Checkpoint(
        "dust3r",
        "dust3r",
        ("naver/DUSt3R_ViTLarge_BaseDecoder_512_dpt",),
        "CC-BY-NC-SA-4.0",
        description="DUSt3R as published: 512 pixels, DPT heads, ViT-Large",
    ),
    "dust3r-512-linear": Checkpoint(
        "dust3r-512-linear",
        "dust3r",
        ("naver/DUSt3R_ViTLarge_BaseDecoder_512_linear",),
        "CC-BY-NC-SA-4.0",
        description="DUSt3R as published: 512 pixels, linear heads, ViT-Large",
    ),
    "dust3r-224-linear": Checkpoint(
        "dust3r-224-linear",
        "dust3r",
        ("naver/DUSt3R_ViTLarge_BaseDecoder_224_linear",),
        "CC-BY-NC-SA-4.0",
        description="DUSt3R as published: 224 pixels, linear heads, ViT-Large",
    ),
    "cut3r": Checkpoint(
        "cut3r",
        "cut3r",
        ("cut3r_512_dpt_4_64",),
        "CC-BY-NC-SA-4.0",
        metric=True,
        description="CUT3R as published: 512 pixels, DPT heads, ViT-Large",
    ),
    "cut3r-224-linear": Checkpoint(
        "cut3r-224-linear",
        "cut3r",
        ("cut3r_224_linear_4",),
        "CC-BY-NC-SA-4.0",
        metric=True,
        description="CUT3R as published: 224 pixels, linear heads, ViT-Large",
    ),
    "fast3r": Checkpoint(
        "fast3r",
        "fast3r",
        ("jedyang97/Fast3R_ViT_Large_512",),
        "FAIR Noncommercial Research License",
        description="Fast3R as published: 512 pixels, DPT heads, ViT-Large",
    ),
}


@dataclass(frozen=True)
class Entry:
    """A checkpoint that can be named, and where it is: ``paths`` is empty when it is not on this disk."""

    checkpoint: Checkpoint
    paths: tuple[Path, ...]
    packaged: bool = False

    @property
    def on_hub(self) -> bool:
        """Whether they can be downloaded."""
        return not self.packaged and _on_hub(self.checkpoint)


def packaged_folder() -> Path:
    """Where the checkpoints inside the package lie."""
    return Path(str(files("threer"))) / "weights"


def entries() -> dict[str, Entry]:
    """Every checkpoint by name: the packaged ones, then the published ones, with their places on this disk."""
    return _packaged() | {name: Entry(card, _on_disk(card)) for name, card in PUBLISHED.items()}


def resolve(name: str) -> Entry:
    """The checkpoint that ``name`` stands for, with paths to load it from; `name@hub` is downloaded.

    Raises CheckpointError for an unknown name, listing the known ones, and for one that is not on this disk.
    """
    plain, _, where = name.partition("@")
    packaged = _packaged()
    if plain in packaged and not where:
        return packaged[plain]
    if plain not in PUBLISHED or where not in ("", "hub"):
        valid = ", ".join([*packaged, *PUBLISHED, *(f"{n}@hub" for n, card in PUBLISHED.items() if _on_hub(card))])
        raise CheckpointError(f"unknown weights {name!r}; valid: {valid}, or the path of a file or folder")
    card = PUBLISHED[plain]
    if where and not _on_hub(card):
        raise CheckpointError(f"the weights {plain!r} are not on the Hub: {_by_hand(card)}")
    if where:
        return Entry(card, tuple(download(repository, card.sha256) for repository in card.files))
    if paths := _on_disk(card):
        return Entry(card, paths)
    for entry in packaged.values():
        if entry.checkpoint.family == plain:
            return entry
    if not _on_hub(card):
        raise CheckpointError(f"the weights {plain!r} are not on this disk: {_by_hand(card)}")
    raise CheckpointError(
        f"the weights {plain!r} are not on this disk: {plain}@hub downloads them "
        f"({', '.join(card.files)}, {card.licence}), or put them into ${FOLDER_VARIABLE}"
    )


def pull(name: str) -> Entry:
    """Download the published checkpoint ``name``, if it is not on this disk. Raises CheckpointError."""
    if name not in PUBLISHED:
        return resolve(name)
    if all(_in_folder(place) for place in PUBLISHED[name].files):
        return resolve(name)
    return resolve(f"{name}@hub")


def is_name(text: str) -> bool:
    """Whether ``text`` names a checkpoint; anything else is a path."""
    return text in PUBLISHED or text in _packaged()


def load_model(name_or_path: str | Path, device: str = "cpu") -> Model:
    """A network with weights, ready for inference on ``device``.

    ``name_or_path`` is a name of `entries`, `name@hub` to download, or the path of a file or folder (a folder that
    is called like a checkpoint is written ``./slam3r``). What was loaded stands in ``model.checkpoint``. Raises
    CheckpointError, and ThreerError for a device that is not here.
    """
    device = find_device(device)
    path = Path(name_or_path)
    named = isinstance(name_or_path, str) and is_name(name_or_path.partition("@")[0])
    with reading(path):  # an empty text is no path, though Path makes the present folder of it
        is_path = name_or_path != "" and not named and (path.exists() or len(path.parts) > 1 or path.suffix != "")
    if is_path:
        return load_path(path).to(device)
    entry = resolve(str(name_or_path))
    if entry.packaged:
        return load_checkpoint(entry.paths[0]).to(device)
    model: Model
    if entry.checkpoint.family == "slam3r":
        model = load_slam3r(*entry.paths)
    else:
        network = load_published(entry.paths[0], entry.checkpoint.family)
        assert isinstance(network, DUSt3R | CUT3R | Fast3R)
        model = network
    model.checkpoint = entry.checkpoint
    return model.to(device)


def _packaged() -> dict[str, Entry]:
    root = packaged_folder()
    folders = sorted(root.iterdir()) if root.is_dir() else []
    return {
        folder.name: Entry(read_card(folder), (folder,), packaged=True)
        for folder in folders
        if (folder / CONFIG).is_file()
    }


def _on_hub(card: Checkpoint) -> bool:
    """Whether the authors keep these weights on the Hub: CUT3R's are files to be fetched by hand."""
    return all("/" in place for place in card.files)


def _by_hand(card: Checkpoint) -> str:
    files = ", ".join(f"{place}.pth" for place in card.files)
    return f"get {files} ({card.licence}) from its authors and put it into ${FOLDER_VARIABLE}"


def _on_disk(card: Checkpoint) -> tuple[Path, ...]:
    """Files or folders of all repositories of ``card`` on this disk; empty if one is missing."""
    found = [_in_folder(repository) or _in_cache(repository) for repository in card.files]
    return tuple(p for p in found if p) if all(found) else ()


def _in_folder(repository: str) -> Path | None:
    root = os.environ.get(FOLDER_VARIABLE)
    if not root:
        return None
    stem = repository.rpartition("/")[2]
    places = [Path(root) / f"{stem}{suffix}" for suffix in ("", ".safetensors", ".pth")]
    return next((place for place in places if place.exists()), None)


def _in_cache(repository: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    if "/" not in repository:
        return None
    for weights in (WEIGHTS, INDEX):
        cached = try_to_load_from_cache(repository, weights)
        if isinstance(cached, str) and holds_weights(Path(cached).parent):
            return Path(cached).parent
    return None
