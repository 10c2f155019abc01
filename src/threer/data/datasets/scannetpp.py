"""ScanNet++ in both layouts: with pairs (`all_metadata.npz`), or with one file of cameras for each scene."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from threer.data.datasets.format import Files, Format, Scene, Split, no_test_split
from threer.data.datasets.metadata import fields, scenes_of, stem_of, tracks_of
from threer.data.reading import intrinsics_of, pose_of
from threer.data.samples import Traits
from threer.errors import SourceError

SPLITS = {"train": ("nvs_sem_train.txt",), "test": ("nvs_sem_val.txt",)}
CAMERAS = ("scene_dslr_metadata.npz", "scene_iphone_metadata.npz")


class ScanNetPP(Format):
    """Depth in millimetres, rendered from the mesh; `masks/` hides what is below 255."""

    def scenes(self, root: Path, split: Split) -> list[Scene]:
        if (root / "all_metadata.npz").is_file():
            no_test_split("scannetpp in the layout with pairs", split)
            return scenes_of(root / "all_metadata.npz")
        names = sorted({path.parent.name for file in CAMERAS for path in root.glob(f"*/{file}")})
        if not names:
            raise SourceError(f"{root} has neither all_metadata.npz nor scenes with {' or '.join(CAMERAS)}")
        if split != "all":
            lists = [root / "splits" / name for name in SPLITS[split]]
            listed = {line.strip() for path in lists if path.is_file() for line in path.read_text().splitlines()}
            if not listed:
                raise SourceError(f"no such list of scenes: {lists[0]}")
            names = [name for name in names if name in listed]
        return [_scene(root, name) for name in names]

    def files(self, root: Path, scene: Scene, view: int) -> Files:
        folder, stem = root / scene.name, scene.stems[view]
        return Files(
            folder / "images" / f"{stem}.jpg",
            folder / "depth" / f"{stem}.png",
            hidden=folder / "masks" / f"{stem}.png",
        )


def _scene(root: Path, name: str) -> Scene:
    stems: list[str] = []
    poses, intrinsics = [], []
    for file in CAMERAS:
        path = root / name / file
        if not path.is_file():
            continue
        images, K, c2w = fields(path, "images", "intrinsics", "trajectories")
        stems += [stem_of(image) for image in images]
        intrinsics += [intrinsics_of(k, str(path)) for k in K]
        poses += [pose_of(p, str(path)) for p in c2w]
    return Scene(name, tuple(stems), tracks_of(tuple(stems)), c2w=np.stack(poses), K=np.stack(intrinsics))


FORMAT = ScanNetPP(Traits(metric=True, interval=3, ordered=0.8, steady=0.5, modality=(0.75, 0.2, 0.05)))
