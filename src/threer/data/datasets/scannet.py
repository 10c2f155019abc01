"""ScanNet: `scans_train/<scene>/{color,depth,cam}`."""

from __future__ import annotations

from pathlib import Path

from threer.data.datasets.format import Files, Format, Scene, Split, track_of
from threer.data.datasets.metadata import fields, stem_of
from threer.data.samples import Traits
from threer.errors import SourceError
from threer.io.folders import natural_order

PARTS: dict[Split, tuple[str, ...]] = {
    "train": ("scans_train",),
    "test": ("scans_test",),
    "all": ("scans_train", "scans_test"),
}


class ScanNet(Format):
    """Depth in millimetres; colour was resized to its size."""

    def scenes(self, root: Path, split: Split) -> list[Scene]:
        folders = [folder for part in PARTS[split] for folder in natural_order((root / part).glob("*/color"))]
        if not folders:
            raise SourceError(f"no scenes in {root / PARTS[split][0]}")
        return [_scene(root, folder.parent) for folder in folders]

    def files(self, root: Path, scene: Scene, view: int) -> Files:
        folder, stem = root / scene.name, scene.stems[view]
        return Files(
            folder / "color" / f"{stem}.jpg", folder / "depth" / f"{stem}.png", folder / "cam" / f"{stem}.npz"
        )


def _scene(root: Path, folder: Path) -> Scene:
    listed = folder / "new_scene_metadata.npz"
    if listed.is_file():
        stems = tuple(stem_of(name) for name in fields(listed, "images")[0])
    else:
        stems = tuple(path.stem for path in natural_order((folder / "color").glob("*.jpg")))
    numbers = [int(stem) for stem in stems] if all(stem.isdigit() for stem in stems) else None
    return Scene(folder.relative_to(root).as_posix(), stems, (track_of(range(len(stems)), numbers),))


FORMAT = ScanNet(Traits(metric=True, interval=30, ordered=0.6, steady=0.6, modality=(0.75, 0.2, 0.05)))
