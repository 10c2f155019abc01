"""Loaders of published data sets by name, and of data of one's own."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from threer.data.datasets import (
    arkitscenes,
    ase,
    blendedmvs,
    co3d,
    habitat,
    megadepth,
    scannet,
    scannetpp,
    simple,
    staticthings3d,
    waymo,
)
from threer.data.datasets.format import Dataset, Files, Format, Scene, Split, Track
from threer.data.datasets.generic import CAMERAS, Generic, generic_traits
from threer.errors import SourceError, ThreerError

GENERIC = "generic"
FORMATS: dict[str, Format] = {
    "scannetpp": scannetpp.FORMAT,
    "scannet": scannet.FORMAT,
    "ase": ase.FORMAT,
    "co3d": co3d.FORMAT,
    "wildrgbd": co3d.WILDRGBD,
    "arkitscenes": arkitscenes.FORMAT,
    "habitat": habitat.FORMAT,
    "megadepth": megadepth.FORMAT,
    "blendedmvs": blendedmvs.FORMAT,
    "staticthings3d": staticthings3d.FORMAT,
    "waymo": waymo.FORMAT,
    **simple.FORMATS,
}


def names() -> list[str]:
    """Every data set that has a loader."""
    return [GENERIC, *FORMATS]


def open_dataset(name: str, root: str | Path, split: Split = "train") -> Dataset:
    """A data set at a folder, in its published layout or in the generic one (`images/ depth/ cams.json`).

    name   one of `names()`;  split "all" takes training and test scenes
    Raises `ThreerError` for an unknown name, a missing folder, or files that are not what they should be.
    """
    root = Path(root)
    if not root.is_dir():
        raise SourceError(f"no such folder: {root}")
    if name != GENERIC and name not in FORMATS:
        close = get_close_matches(name, names(), 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ThreerError(f"unknown data set {name!r}{hint} Valid: {', '.join(names())}")
    if name == GENERIC or looks_generic(root):
        chosen: Format = Generic(generic_traits(root) if name == GENERIC else FORMATS[name].traits)
    else:
        chosen = FORMATS[name]
    scenes = [scene for scene in chosen.scenes(root, split) if len(scene)]
    return Dataset(name, root, chosen, scenes, chosen.traits)


def looks_generic(root: Path) -> bool:
    """Whether `cams.json` lies in the folder, or in one of the two levels below."""
    return any(next(root.glob(pattern + CAMERAS), None) is not None for pattern in ("", "*/", "*/*/"))


def guess_name(root: str | Path) -> str:
    """The data set that lies at a folder, from marks that only one layout has, or from the folder's name."""
    root = Path(root)
    if looks_generic(root):
        return GENERIC
    if root.name.lower() in FORMATS:
        return root.name.lower()
    marks = {
        "waymo_pairs.npz": "waymo", blendedmvs.PAIRS: "blendedmvs", "Habitat_*_scenes_*.txt": "habitat",
        "TRAIN/*/*/left": "staticthings3d", "Training/all_metadata.npz": "arkitscenes",
        "scans_t*/*/color": "scannet", "*/scene_*_metadata.npz": "scannetpp",
        "*/intrinsic/intrinsic_color.txt": "ase", "*/*/images/frame*.npz": "co3d", "*/*/metadata/*.npz": "wildrgbd",
    }  # fmt: skip
    for pattern, name in marks.items():
        if next(root.glob(pattern), None) is not None:
            return name
    raise ThreerError(f"cannot tell which data set lies in {root}; say so with --dataset ({', '.join(names())})")


__all__ = [
    "Dataset", "Files", "Format", "Scene", "Split", "Track",
    "guess_name", "names", "open_dataset",
]  # fmt: skip
