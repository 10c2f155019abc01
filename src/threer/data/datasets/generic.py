"""Data of one's own: `images/`, `depth/` and `cams.json`, in the root or in one folder for each scene."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from threer.data.datasets.folders import DEPTHS, KEEP_SOME, TESTS, _first, numbers_of
from threer.data.datasets.format import Files, Format, Scene, Split, no_test_split, track_of
from threer.data.reading import camera_of, intrinsics_of, read_arrays
from threer.data.samples import Traits
from threer.errors import SourceError
from threer.io.folders import natural_order

CAMERAS = "cams.json"
PAIRS = "pairs.npz"


class Generic(Format):
    """`cams.json`: {"metric": true, "K": [[…]], "views": {"0001.jpg": {"c2w": [[…]], "K": [[…]]}, …}}.

    K may stand once for all views; depth may be 16-bit PNG (millimetres), NPY or EXR (metres), or missing for all.
    """

    def scenes(self, root: Path, split: Split) -> list[Scene]:
        return [self._scene(root, folder) for folder in scene_folders(root, split)]

    def files(self, root: Path, scene: Scene, view: int) -> Files:
        folder, name = root / scene.name, scene.stems[view]
        depth = None
        if not self.traits.camera_only:
            depth = _first(folder / "depth", PurePosixPath(name).stem, DEPTHS)
        return Files(folder / "images" / name, depth)

    def _scene(self, root: Path, folder: Path) -> Scene:
        content = cameras_of(folder)
        views = content["views"]
        stems = tuple(path.as_posix() for path in natural_order(Path(name) for name in views))
        shared = {"K": content["K"]} if "K" in content else {}
        cameras = [camera_of(shared | views[name], f"{folder / CAMERAS}, {name}") for name in stems]
        edges = scores = angles = None
        if (folder / PAIRS).is_file():
            pairs = read_arrays(folder / PAIRS)
            edges, scores, angles = pairs.get("edges"), pairs.get("scores"), pairs.get("angles")
        return Scene(
            folder.relative_to(root).as_posix(),
            stems,
            () if self.traits.single_view else (track_of(range(len(stems)), numbers_of(stems)),),
            None if edges is None else np.asarray(edges, np.int64).reshape(-1, 2),
            scores,
            angles,
            c2w=np.stack([c2w for c2w, _ in cameras]),
            K=np.stack([K for _, K in cameras]),
        )


def cameras_of(folder: Path) -> dict[str, Any]:
    """What `cams.json` of a scene says. Raises `SourceError` for a file of another form."""
    path = folder / CAMERAS
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be read ({error})") from None
    views = content.get("views") if isinstance(content, dict) else None
    if not isinstance(views, dict) or not views or not all(isinstance(v, dict) for v in views.values()):
        raise SourceError(f'{path} needs "views": names of pictures, each with "c2w" and "K"')
    if "K" in content:
        intrinsics_of(content["K"], str(path))
    return content


def scene_folders(root: Path, split: Split = "all") -> list[Path]:
    """Folders that hold `cams.json`: the root itself or those below it."""
    if (root / CAMERAS).is_file():
        if split == "test":
            no_test_split(str(root), split, KEEP_SOME)
        return [root]
    found = sorted(path.parent for path in root.rglob(CAMERAS))
    tests = [folder for folder in found if folder.relative_to(root).parts[0] in TESTS]
    if split == "test":
        if not tests:
            no_test_split(str(root), split, KEEP_SOME)
        return tests
    return [folder for folder in found if split == "all" or folder not in tests]


def generic_traits(root: Path) -> Traits:
    """Traits that the files of data without a name tell. Raises `SourceError` when its scenes differ."""
    found = {
        (bool(cameras_of(folder).get("metric", True)), not (folder / "depth").is_dir())
        for folder in scene_folders(root)
    }
    if len(found) > 1:
        raise SourceError(f"{root}: some scenes are metric or have depth and others not; make two sets of them")
    metric, camera_only = found.pop() if found else (True, False)
    return Traits(metric=metric, camera_only=camera_only)
