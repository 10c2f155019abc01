"""Each fault that is planted into a sound data set is found, by its kind, and nothing is found without one."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import layouts
from threer.cli import main
from threer.cli.data import Preview
from threer.data import preview
from threer.data.checking import Report, check
from threer.data.datasets import open_dataset
from threer.data.synthetic import HAND_HELD, render_clip
from threer.errors import ThreerError


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sound")
    layouts.write("bedlam", root)
    return root


def folder(root: Path, part: str, frame: int) -> Path:
    suffix = {"rgb": "png", "depth": "npy", "cam": "npz"}[part]
    return root / "scene0" / part / f"{frame:05d}.{suffix}"


def camera(root: Path, frame: int, **changes: np.ndarray) -> None:
    path = folder(root, "cam", frame)
    np.savez(path, **(dict(np.load(path)) | changes))


def poses(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        for frame in range(layouts.FRAMES):
            camera(root, frame, pose=change(np.load(folder(root, "cam", frame))["pose"]))

    return plant


def depths(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        for frame in range(layouts.FRAMES):
            path = folder(root, "depth", frame)
            np.save(path, change(np.load(path)))

    return plant


def scaled(pose: np.ndarray) -> np.ndarray:
    return pose @ np.diag([1.1, 1.1, 1.1, 1])


def mirrored(pose: np.ndarray) -> np.ndarray:
    return pose @ np.diag([-1.0, 1, 1, 1])


LOW = np.array([[55.0, 0, 2], [0, 55, 24], [0, 0, 1]])  # principal point at the border
DRAWS = np.random.default_rng(0)

FAULTS: dict[str, tuple[str, str, Callable[[Path], object]]] = {
    "missing depth": ("missing", r"no such file: scene0/depth/00005.npy", lambda r: folder(r, "depth", 5).unlink()),
    "missing camera": ("missing", r"no such file: .*cam/00002.npz", lambda r: folder(r, "cam", 2).unlink()),
    "broken picture": ("picture", "not an image|damaged", lambda r: folder(r, "rgb", 1).write_bytes(b"x" * 99)),
    "broken depth": ("depth", "damaged", lambda r: folder(r, "depth", 1).write_bytes(b"\x93NUMPY")),
    "broken camera": ("camera", "damaged", lambda r: folder(r, "cam", 1).write_bytes(b"PK")),
    "no intrinsics": ("camera", "has no intrinsics", lambda r: np.savez(folder(r, "cam", 1), pose=np.eye(4))),
    "another format": ("depth size", "40×48 does", lambda r: np.save(folder(r, "depth", 1), np.ones((48, 40)))),
    "NaN pose": ("pose", "not finite", lambda r: camera(r, 3, pose=np.full((4, 4), np.nan))),
    "scaled pose": ("pose", r"scales by 1\.1", poses(scaled)),
    "mirrored pose": ("pose", "mirrors", poses(mirrored)),
    "focal": ("intrinsics", "degrees", lambda r: camera(r, 0, intrinsics=np.diag([0.9, 0.9, 1.0]))),
    "flat K": ("intrinsics", "no camera", lambda r: camera(r, 0, intrinsics=np.zeros((3, 3)))),
    "principal point": (
        "intrinsics", "at the border", lambda r: camera(r, 0, intrinsics=LOW)
    ),
    "millimetres": ("depth unit", "millimetres", depths(lambda d: d * 1000)),
    "no depth": ("depth", "no pixel has depth", lambda r: np.save(folder(r, "depth", 4), np.zeros((48, 64)))),
    "shuffled depth": ("reprojection", "the depth agrees", depths(lambda d: d * DRAWS.uniform(1, 3))),
    "duplicate": ("duplicate", "same picture as", lambda r: shutil.copy(folder(r, "rgb", 1), folder(r, "rgb", 2))),
}  # fmt: skip


def checked(root: Path, name: str = "bedlam") -> Report:
    return check(open_dataset(name, root, "all"), 200)


def test_a_sound_set_has_no_findings(sound: Path) -> None:
    report = checked(sound)
    assert report.findings == []
    assert report.read == layouts.FRAMES
    assert report.pairs == 3 * report.read // 4
    assert min(report.agree) > 0.95


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_found(fault: str, sound: Path, tmp_path: Path) -> None:
    kind, message, plant = FAULTS[fault]
    root = tmp_path / "copy"
    shutil.copytree(sound, root)
    plant(root)
    report = checked(root, "spring" if fault == "millimetres" else "bedlam")  # bedlam drops what is beyond 200 m
    found = [f for f in report.findings if f.kind == kind]
    assert found, [str(f) for f in report.findings]
    assert any(re.search(message, f.message) for f in found), [str(f) for f in found]


@pytest.mark.parametrize(
    ("plant", "hint"),
    [
        (poses(np.linalg.inv), "world-to-camera poses"),
        (poses(lambda p: p @ np.diag([1.0, -1, -1, 1])), "OpenGL cameras"),
    ],
)
def test_the_likely_mistake_is_named(plant: Callable[[Path], None], hint: str, tmp_path: Path) -> None:
    layouts.folders(tmp_path, layouts.truth(5, layouts.FRAMES, 0.11))
    assert checked(tmp_path).findings == []
    plant(tmp_path)
    assert any(hint in finding.message for finding in checked(tmp_path).findings)


@pytest.mark.parametrize("name", ["re10k", "arkitscenes", "megadepth", "habitat", "waymo", "generic"])
def test_other_layouts_are_sound_too(name: str, tmp_path: Path) -> None:
    layouts.write(name, tmp_path)
    report = checked(tmp_path, name)
    kinds = {finding.kind for finding in report.findings}
    assert kinds == ({"duplicate"} if name == "megadepth" else set())  # two scenes of one clip
    assert report.read == report.views
    assert bool(report.agree) == (name != "re10k")


def test_the_command_says_it_in_lines_and_in_json(
    sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", str(sound), "--dataset", "bedlam"]) == 0
    assert "nothing wrong was found" in capsys.readouterr().out
    root = tmp_path / "copy"
    shutil.copytree(sound, root)
    for frame in range(8):
        folder(root, "depth", frame).unlink()
    assert main(["data", "check", str(root), "--dataset", "bedlam"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert sum("no such file" in line for line in lines) == 8
    assert lines[-1] == "8 errors, 0 warnings"
    assert main(["data", "check", str(root), "--dataset", "bedlam", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["errors"], told["read"], len(told["findings"])) == (8, 0, 8)
    assert main(["data", "check", str(root)]) == 1
    assert "--dataset" in capsys.readouterr().err
    assert main(["data", "check", str(root / "none")]) == 1


def test_a_sheet_shows_pictures_above_their_depth(sound: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    assert main(["data", "preview", str(sound), "--dataset", "bedlam", "-o", str(out), "--columns", "3"]) == 0
    sheet = np.asarray(Image.open(out)).astype(float)
    assert sheet.shape == (2 * 120 + preview.BORDER, 3 * (160 + preview.BORDER), 3)
    picture = np.asarray(Image.open(folder(sound, "rgb", 0)).resize((160, 120), Image.Resampling.LANCZOS))
    assert np.abs(sheet[:120, :160] - picture).max() <= 1
    depth = np.load(folder(sound, "depth", 0))
    near = np.unravel_index(depth.argmin(), depth.shape)
    far = np.unravel_index(depth.argmax(), depth.shape)
    shades = sheet[120:240, :160]
    at = [shades[int((v + 0.5) * 2.5), int((u + 0.5) * 2.5)] for v, u in (near, far)]
    assert at[0][0] > at[0][2]  # near is red, far is blue
    assert at[1][2] > at[1][0]


def test_unknown_depth_is_black_and_sky_is_pale() -> None:
    image = np.full((4, 4, 3), 9, np.uint8)
    depth = np.array([[0, -1, 1, 2]] * 4, np.float32)
    cell = preview.contact_sheet([[(image, depth)]], width=4)[4:8, :4]
    assert cell[0, 0].tolist() == [0, 0, 0]
    assert cell[0, 1].min() > 180
    with pytest.raises(ThreerError, match="nothing to show"):
        preview.contact_sheet([])


def test_generated_rooms_are_shown(tmp_path: Path) -> None:
    style = replace(HAND_HELD, antialias=False)
    sheet = preview.of_generator(2, 2, 3, style, width=32, height=24)
    assert [len(row) for row in sheet] == [2, 2]
    empty = render_clip(3, 2, (32, 24), replace(style, room=replace(style.room, clutter=0.0)))
    assert np.array_equal(sheet[0][1][1], empty.depth[1].numpy()), "the first row is the emptiest"
    with pytest.raises(ThreerError, match="plain rooms take no textures"):
        Preview("synthetic", style="plain", textures=tmp_path).run()
    with pytest.raises(ThreerError, match="no image to use as a texture"):
        Preview("synthetic", textures=tmp_path).run()
    with pytest.raises(ThreerError, match=r"name that ends in \.png"):
        preview.save_sheet(preview.contact_sheet(sheet), tmp_path / "sheet.xyz")
