"""One rendered clip, written to disk in the layout of any data set, with its truth."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from threer.data.synthetic import ClipStyle, Motion, render_clip

SIZE = (64, 48)
FRAMES = 8
Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Truth:
    """images [N, H, W, 3] uint8, depth [N, H, W] metres, c2w [N, 4, 4], K [3, 3]."""

    images: Array
    depth: Array
    c2w: Array
    K: Array


@cache
def truth(seed: int = 3, frames: int = FRAMES, step: float = 0.025) -> Truth:
    """A walk of ``step`` metres a frame; by default so slow that neighbouring frames overlap nearly wholly."""
    style = ClipStyle(fov=(60.0, 60.0), motion=Motion(step=(step, step), gaze=(0.0, step)), colour=0)
    clip = render_clip(seed, frames, SIZE, style)
    images = (clip.images.permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)
    depth = clip.depth.numpy().astype(np.float64)
    return Truth(images, depth, clip.c2w.numpy().astype(np.float64), clip.K[0].numpy().astype(np.float64))


def ray_length(depth: Array, K: Array) -> Array:
    v, u = np.mgrid[: depth.shape[0], : depth.shape[1]]
    rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(depth)], -1)
    return depth * np.linalg.norm(rays, axis=-1)


def put_image(path: Path, image: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **({"quality": 95} if path.suffix != ".png" else {}))


def put_png16(path: Path, values: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.rint(values).astype(np.uint16))


def put_mask(path: Path, mask: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), mask.astype(np.uint8) * 255)


def put_npy(path: Path, values: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)


def put_exr(path: Path, values: Array) -> None:
    import OpenEXR

    path.parent.mkdir(parents=True, exist_ok=True)
    channel = {"Y": np.ascontiguousarray(values, np.float32)}
    OpenEXR.File({"type": OpenEXR.scanlineimage}, channel).write(str(path))


def put_npz(path: Path, **values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **values)


def folders(root: Path, t: Truth, scene: str = "scene0", depth: str = ".npy", cam: str = "pose") -> None:
    for n in range(len(t.depth)):
        put_image(root / scene / "rgb" / f"{n:05d}.png", t.images[n])
        put_npz(root / scene / "cam" / f"{n:05d}.npz", intrinsics=t.K, **{cam: t.c2w[n]})
        if depth:
            (put_npy if depth == ".npy" else put_exr)(root / scene / "depth" / f"{n:05d}{depth}", t.depth[n])


def _suffixes(root: Path, t: Truth, image: str = "png") -> None:
    for n in range(len(t.depth)):
        base = root / "scene0" / f"{n:05d}"
        put_image(base.with_name(f"{n:05d}_rgb.{image}"), t.images[n])
        put_npy(base.with_name(f"{n:05d}_depth.npy"), t.depth[n])
        put_npz(base.with_name(f"{n:05d}_cam.npz"), intrinsics=t.K, cam2world=t.c2w[n])


def co3d(root: Path, t: Truth) -> None:
    folder = root / "apple" / "1_2_3"
    for n in range(len(t.depth)):
        name = f"frame{n + 1:06d}"
        put_image(folder / "images" / f"{name}.jpg", t.images[n])
        most = float(t.depth[n].max())
        put_npz(
            folder / "images" / f"{name}.npz", camera_pose=t.c2w[n], camera_intrinsics=t.K, maximum_depth=most
        )  # fmt: skip
        put_png16(folder / "depths" / f"{name}.jpg.geometric.png", t.depth[n] / most * 65535)
        put_mask(folder / "masks" / f"{name}.png", object_mask(t.depth[n]))
    _selected(root, {"apple": {"1_2_3": list(range(1, len(t.depth) + 1))}})


def object_mask(depth: Array) -> Array:
    return depth < np.median(depth)


def _selected(root: Path, table: dict[str, Any]) -> None:
    for part in ("train", "test"):
        (root / f"selected_seqs_{part}.json").write_text(json.dumps(table))


def wildrgbd(root: Path, t: Truth) -> None:
    folder = root / "cup" / "scene_001"
    for n in range(len(t.depth)):
        put_image(folder / "rgb" / f"{n:05d}.jpg", t.images[n])
        put_png16(folder / "depth" / f"{n:05d}.png", t.depth[n] * 1000)
        put_mask(folder / "masks" / f"{n:05d}.png", object_mask(t.depth[n]))
        put_npz(folder / "metadata" / f"{n:05d}.npz", camera_pose=t.c2w[n], camera_intrinsics=t.K)
    _selected(root, {"cup": {"scene_001": list(range(len(t.depth)))}})


def _all_metadata(path: Path, t: Truth, scene: str, names: list[str], K: Array) -> None:
    n = len(names)
    pairs = np.array([(i, j, 0.5) for i in range(n) for j in range(i + 1, n)])
    put_npz(
        path, scenes=[scene], sceneids=np.zeros(n, int), images=names,
        intrinsics=np.stack([K] * n), trajectories=t.c2w, pairs=pairs,
    )  # fmt: skip


def scannetpp_pairs(root: Path, t: Truth) -> None:
    names = [f"DSC{n + 10:05d}" for n in range(len(t.depth))]
    for n, name in enumerate(names):
        put_image(root / "abc" / "images" / f"{name}.jpg", t.images[n])
        put_png16(root / "abc" / "depth" / f"{name}.png", t.depth[n] * 1000)
    _all_metadata(root / "all_metadata.npz", t, "abc", [f"{n}.JPG" for n in names], t.K)


def scannetpp_frames(root: Path, t: Truth) -> None:
    half = len(t.depth) // 2
    for kind, rows, name in (
        ("dslr", range(half), "DSC{:05d}"),
        ("iphone", range(half, len(t.depth)), "frame_{:06d}"),
    ):
        names = [name.format((10 if kind == "iphone" else 1) * n) for n in rows]
        for n, stem in zip(rows, names, strict=True):
            put_image(root / "abc" / "images" / f"{stem}.jpg", t.images[n])
            put_png16(root / "abc" / "depth" / f"{stem}.png", t.depth[n] * 1000)
            hidden = np.ones(t.depth[n].shape, bool)
            hidden[:5] = False
            put_mask(root / "abc" / "masks" / f"{stem}.png", hidden)
        put_npz(
            root / "abc" / f"scene_{kind}_metadata.npz",
            images=[f"{n}.jpg" for n in names], intrinsics=np.stack([t.K] * len(names)),
            trajectories=t.c2w[list(rows)],
        )  # fmt: skip
    (root / "splits").mkdir()
    (root / "splits" / "nvs_sem_train.txt").write_text("abc\n")
    (root / "splits" / "nvs_sem_val.txt").write_text("def\n")


def scannet(root: Path, t: Truth) -> None:
    folder = root / "scans_train" / "scene0000_00"
    for n in range(len(t.depth)):
        put_image(folder / "color" / f"{n:05d}.jpg", t.images[n])
        put_png16(folder / "depth" / f"{n:05d}.png", t.depth[n] * 1000)
        put_npz(folder / "cam" / f"{n:05d}.npz", pose=t.c2w[n], intrinsics=t.K)
    put_npz(folder / "new_scene_metadata.npz", images=[f"{n:05d}" for n in range(len(t.depth))])


def arkitscenes(root: Path, t: Truth) -> None:
    names = [f"40753679_{n + 6791.123:.3f}" for n in range(len(t.depth))]
    folder = root / "Training" / "40753679"
    for n, name in enumerate(names):
        put_image(folder / "vga_wide" / f"{name}.jpg", t.images[n])
        put_png16(folder / "lowres_depth" / f"{name}.png", t.depth[n] * 1000)
    camera = np.array([*SIZE, t.K[0, 0], t.K[1, 1], t.K[0, 2], t.K[1, 2]])
    _all_metadata(root / "Training" / "all_metadata.npz", t, "40753679", [f"{n}.png" for n in names], camera)
    collection = {0: [(1, 0.9), (3, 0.5)], 4: [(5, 0.7), (6, 0.3)]}
    put_npz(folder / "new_scene_metadata.npz", image_collection=np.array(collection, dtype=object))


def ase(root: Path, t: Truth) -> None:
    for scene in range(10):
        folder = root / str(scene)
        for n in range(len(t.depth) if scene == 0 else 1):
            put_image(folder / "color" / f"{n:07d}.jpg", t.images[n])
            put_png16(folder / "depth" / f"{n:07d}.png", ray_length(t.depth[n], t.K) * 1000)
            (folder / "pose").mkdir(exist_ok=True)
            np.savetxt(folder / "pose" / f"{n:07d}.txt", t.c2w[n])
        (folder / "intrinsic").mkdir()
        np.savetxt(folder / "intrinsic" / "intrinsic_color.txt", t.K)


def blendedmvs(root: Path, t: Truth) -> None:
    rows = []
    for low in (11, 20):
        for n in range(len(t.depth)):
            base = root / f"{0x5A:08x}{low:016x}" / f"{n:08d}"
            put_image(base.with_suffix(".jpg"), t.images[n])
            put_exr(base.with_suffix(".exr"), t.depth[n])
            put_npz(
                base.with_suffix(".npz"), intrinsics=t.K, R_cam2world=t.c2w[n, :3, :3], t_cam2world=t.c2w[n, :3, 3]
            )
            if n:
                rows.append((0x5A, low, n - 1, n, 0.5))
    kinds = [("seq_high", "u8"), ("seq_low", "u8"), ("img1", "u4"), ("img2", "u4"), ("score", "f4")]
    put_npy(root / "blendedmvs_pairs.npy", np.array(rows, dtype=kinds))


def megadepth(root: Path, t: Truth) -> None:
    names = [f"{n}_o" for n in range(len(t.depth))]
    for scene in ("0000/0", "0015/0"):
        for n, name in enumerate(names):
            base = root / scene / name
            put_image(root / scene / f"{name}.jpg", t.images[n])
            put_exr(base.with_suffix(".exr"), t.depth[n])
            put_npz(base.with_suffix(".npz"), intrinsics=t.K, cam2world=t.c2w[n])
    pairs = [(s, n - 1, n, 0.4) for s in range(2) for n in range(1, len(names))]
    put_npz(
        root / "all_metadata.npz",
        scenes=["0000/0", "0015/0"],
        images=[f"{n}.jpg" for n in names],
        pairs=np.array(pairs),
    )


def habitat(root: Path, t: Truth) -> None:
    for n in range(5):
        base = root / "hm3d" / "00001"
        put_image(base / f"k7_{n + 1}.jpeg", t.images[n])
        put_exr(base / f"k7_{n + 1}_depth.exr", t.depth[n])
        (base / f"k7_{n + 1}_camera_params.json").write_text(json.dumps({
            "camera_intrinsics": t.K.tolist(), "R_cam2world": t.c2w[n, :3, :3].tolist(),
            "t_cam2world": t.c2w[n, :3, 3].tolist(),
        }))  # fmt: skip
    (root / "Habitat_1_scenes_train.txt").write_text("hm3d/00001/k7\n")


def staticthings3d(root: Path, t: Truth) -> None:
    half = len(t.depth) // 2
    for n in range(2 * half):
        folder = root / "TRAIN" / "B" / "0003" / ("left", "right")[n // half]
        name = f"{6 + n % half:04d}"
        put_image(folder / f"{name}_clean.jpg", t.images[n])
        put_image(folder / f"{name}_final.jpg", 255 - t.images[n])
        put_exr(folder / f"{name}.exr", t.depth[n])
        put_npz(folder / f"{name}.npz", intrinsics=t.K, cam2world=t.c2w[n])
    rows = [("B", "0003", "left", "0006", "right", "0007"), ("B", "0003", "left", "0007", "left", "0009")]
    put_npy(root / "staticthings_pairs.npy", np.array(rows))


def waymo(root: Path, t: Truth) -> None:
    half = len(t.depth) // 2
    names = [f"{n % half:05d}_{(1, 4)[n // half]}" for n in range(2 * half)]
    for n, name in enumerate(names):
        base = root / "segment-1" / name
        put_image(base.with_suffix(".jpg"), t.images[n])
        put_exr(base.with_suffix(".exr"), t.depth[n])
        put_npz(base.with_suffix(".npz"), intrinsics=t.K, cam2world=t.c2w[n])
    put_npz(root / "waymo_pairs.npz", scenes=["segment-1"], frames=names, pairs=np.array([(0, 0, 1), (0, 1, half)]))


def generic(root: Path, t: Truth, depth: str = ".png") -> None:
    views = {}
    for n in range(len(t.depth)):
        put_image(root / "images" / f"{n:04d}.png", t.images[n])
        path = root / "depth" / f"{n:04d}{depth}"
        if depth == ".png":
            put_png16(path, t.depth[n] * 1000)
        else:
            (put_npy if depth == ".npy" else put_exr)(path, t.depth[n])
        views[f"{n:04d}.png"] = {"c2w": t.c2w[n].tolist()}
    (root / "cams.json").write_text(json.dumps({"metric": True, "K": t.K.tolist(), "views": views}))


def dl3dv(root: Path, t: Truth) -> None:
    folders(root / "scene0", t, "dense", cam="pose")
    for n in range(len(t.depth)):
        sky, outlier = np.zeros(t.depth[n].shape, bool), np.zeros(t.depth[n].shape, bool)
        sky[:4], outlier[:, :3] = True, True
        put_mask(root / "scene0" / "dense" / "sky_mask" / f"{n:05d}.png", sky)
        put_mask(root / "scene0" / "dense" / "outlier_mask" / f"{n:05d}.png", outlier)


def mp3d(root: Path, t: Truth) -> None:
    folders(root, t)
    put_npy(root / "scene0" / "overlap.npy", np.array([(n - 1, n, 0.6) for n in range(1, len(t.depth))]))


WRITERS: dict[str, Callable[[Path, Truth], None]] = {
    "co3d": co3d, "wildrgbd": wildrgbd, "scannet": scannet, "arkitscenes": arkitscenes, "ase": ase,
    "blendedmvs": blendedmvs, "megadepth": megadepth, "habitat": habitat, "staticthings3d": staticthings3d,
    "waymo": waymo, "dl3dv": dl3dv, "mp3d": mp3d, "generic": generic,
    "hypersim": _suffixes, "tartanair": _suffixes, "unrealstereo4k": _suffixes,
    "vkitti2": lambda root, t: _suffixes(root, t, "jpg"), "mapfree": folders,
    "bedlam": folders, "pointodyssey": lambda root, t: folders(root, t, depth=".exr"), "mvs-synth": folders,
    "dynamicreplica": lambda root, t: folders(root / "train", t, "s0/left"), "spring": folders, "uasol": folders,
    "omniobject3d": folders, "re10k": lambda root, t: folders(root, t, depth=""),
    "mvimgnet": lambda root, t: folders(root, t, depth=""),
}  # fmt: skip


def write(name: str, root: Path, seed: int = 3) -> Truth:
    """Write a clip in the layout of a data set, or of "scannetpp-pairs", "scannetpp-frames"."""
    more = {"scannetpp-pairs": scannetpp_pairs, "scannetpp-frames": scannetpp_frames}
    root.mkdir(parents=True, exist_ok=True)
    clip = truth(seed)
    (WRITERS | more)[name](root, clip)
    return clip
