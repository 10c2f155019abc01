"""Known lenses: files of calibration, and pictures of which the distortion is undone."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from threer.config import SourceConfig
from threer.errors import SourceError, ThreerError
from threer.io.intrinsics import KnownLens, Undistortion, read_lens, with_known_lens
from threer.io.sources import open_source

K = np.array([[150.0, 0, 79.5], [0, 152.0, 58.0], [0, 0, 1]])
NUMBERS = (150.0, 152.0, 79.5, 58.0)
SIZE = (160, 120)
BARREL = (-0.25, 0.08, 0.003, -0.002, 0.01)
FISHEYE = (-0.05, 0.02, -0.003, 0.001)

ROS = """image_width: 160
image_height: 120
camera_name: head
camera_matrix:
  rows: 3
  cols: 3
  data: [150., 0., 79.5, 0., 152., 58., 0., 0., 1.]
distortion_model: equidistant
distortion_coefficients:
  rows: 1
  cols: 4
  data: [-0.05, 0.02, -0.003, 0.001]
"""


def smooth(x, y):
    """A picture by formula, [..., 3] uint8 at any pixel, so that resampling can be compared with the truth."""
    waves = [np.sin(x / 9) * np.cos(y / 7), np.cos(x / 11 + y / 8), np.sin(y / 10 - x / 12)]
    return np.rint(127 + 90 * np.stack(waves, axis=-1)).astype(np.uint8)


def taken(coefficients, fisheye=False):
    """The picture that a lens with distortion takes of the pinhole picture `smooth`."""
    v, u = np.indices(SIZE[::-1]).astype(np.float64)
    pixels = np.stack([u, v], axis=-1).reshape(-1, 1, 2)
    undo = cv2.fisheye.undistortPoints if fisheye else cv2.undistortPoints
    x, y = undo(pixels, K, np.array(coefficients), P=K).reshape(*SIZE[::-1], 2).transpose(2, 0, 1)
    return smooth(x, y)


def test_a_calibration_of_opencv(tmp_path):
    for suffix in ("yml", "json", "xml"):
        storage = cv2.FileStorage(str(tmp_path / f"lens.{suffix}"), cv2.FILE_STORAGE_WRITE)
        storage.write("image_width", 160)
        storage.write("image_height", 120)
        storage.write("camera_matrix", K)
        storage.write("distortion_coefficients", np.array(BARREL)[None])
        storage.release()
        assert read_lens(tmp_path / f"lens.{suffix}") == KnownLens(NUMBERS, BARREL, False, SIZE)


def test_other_calibrations(tmp_path):
    (tmp_path / "ros.yaml").write_text(ROS)
    assert read_lens(tmp_path / "ros.yaml") == KnownLens(NUMBERS, FISHEYE, True, SIZE)
    (tmp_path / "plain.json").write_text(json.dumps({"K": K.tolist(), "D": [0, 0, 0, 0]}))
    assert read_lens(tmp_path / "plain.json") == KnownLens(NUMBERS)
    (tmp_path / "K.txt").write_text("# K\n150 0 79.5\n0, 152, 58\n0 0 1\n")
    assert read_lens(tmp_path / "K.txt") == KnownLens(NUMBERS)


def test_a_transforms_json_counts_from_pixel_corners(tmp_path):
    fields = {"fl_x": 150, "fl_y": 152, "cx": 80.0, "cy": 58.5, "w": 160, "h": 120}
    path = tmp_path / "transforms.json"
    path.write_text(json.dumps({**fields, "camera_model": "OPENCV", "k1": -0.25, "k2": 0.08, "p1": 0.01}))
    assert read_lens(path) == KnownLens(NUMBERS, (-0.25, 0.08, 0.01, 0.0, 0.0), False, SIZE)
    path.write_text(json.dumps({**fields, "camera_model": "OPENCV_FISHEYE", "k1": 0.1, "k4": 0.2}))
    assert read_lens(path) == KnownLens(NUMBERS, (0.1, 0.0, 0.0, 0.2), True, SIZE)
    path.write_text(json.dumps({**fields, "k1": 0}))
    assert read_lens(path) == KnownLens(NUMBERS, None, False, SIZE)
    path.write_text(json.dumps({**fields, "k4": 0.2}))
    with pytest.raises(SourceError, match="k4 has no equal"):
        read_lens(path)


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("a.json", "{", "holds no intrinsics"),
        ("a.json", '{"frames": []}', "has no 'camera_matrix'"),
        ("a.json", '{"K": [[1, 2], [3, 4]]}', "holds no intrinsics"),
        ("a.txt", "1 2 3", "1×3, not 3×3"),
        ("a.txt", "1 0 0\n0 1\n", "holds no intrinsics"),
        ("a.txt", "100 0 0\n0 -1 0\n0 0 1", "positive fx and fy"),
        ("a.txt", "", "not 3×3"),
        ("a.yaml", "hello", "holds no intrinsics"),
        ("a.yml", "%YAML:1.0\n---\nx: 1\n", "has no 'camera_matrix'"),
    ],
)
def test_what_is_no_calibration_is_told_in_a_line(tmp_path, name, text, why):
    (tmp_path / name).write_text(text)
    with pytest.raises(SourceError, match=why) as error:
        read_lens(tmp_path / name)
    assert "\n" not in str(error.value)
    with pytest.raises(SourceError, match="cannot read"):
        read_lens(tmp_path / "nothing.txt")


@pytest.mark.parametrize(("coefficients", "fisheye"), [(BARREL, False), (BARREL[:4], False), (FISHEYE, True)])
def test_undone_pictures_are_those_of_a_pinhole(coefficients, fisheye):
    v, u = np.indices(SIZE[::-1])
    truth = smooth(u, v).astype(float)
    bent = taken(coefficients, fisheye)
    undo = Undistortion(K, coefficients, fisheye=fisheye)
    seen = undo.seen(SIZE)
    inside = np.ones(SIZE[::-1], bool) if seen is None else seen
    inside = cv2.erode(np.pad(inside, 1).astype(np.uint8), np.ones((5, 5)))[1:-1, 1:-1] > 0
    after = np.abs(undo(bent) - truth)[inside]
    before = np.abs(bent - truth)[inside]
    assert after.mean() < 1.0 < 10 < before.mean()  # of 255


def test_what_the_original_does_not_show_is_known():
    pincushion = Undistortion(K, (0.4, 0.0, 0.0, 0.0))
    seen = pincushion.seen(SIZE)
    assert not seen[0, 0]
    assert seen[60, 80]
    assert (pincushion(np.full((120, 160, 3), 200, np.uint8))[~seen] == 0).all()
    assert Undistortion(K, (-0.1, 0.0, 0.0, 0.0)).seen(SIZE) is None  # a barrel fills the picture
    with pytest.raises(SourceError, match=r"the distortion 90,0,0,0 leaves \d+% of a picture of 160×120"):
        Undistortion(K, (90.0, 0.0, 0.0, 0.0)).seen(SIZE)
    # Beyond a radius the polynomial turns the picture inside out: nothing is seen there twice.
    folded = Undistortion(K, (-0.9, 0.0, 0.0, 0.0)).seen(SIZE)
    corner = (79.5 / 150) ** 2 + (58 / 152) ** 2
    assert corner > 1 / (3 * 0.9)
    assert not folded[0, 0]


def test_sources_give_pictures_without_distortion(tmp_path):
    Image.fromarray(taken(BARREL)).save(tmp_path / "a.png")
    plain = next(iter(open_source(tmp_path / "a.png")))
    config = SourceConfig(intrinsics=NUMBERS, distortion=BARREL)
    undone = next(iter(open_source(tmp_path / "a.png", config)))
    v, u = np.indices(SIZE[::-1])
    middle = np.s_[5:-5, 5:-5]
    assert np.abs(undone.image - smooth(u, v).astype(float))[middle].mean() < 1.0
    assert np.abs(plain.image - smooth(u, v).astype(float))[middle].mean() > 5.0
    known_only = next(iter(open_source(tmp_path / "a.png", SourceConfig(intrinsics=NUMBERS))))
    np.testing.assert_array_equal(known_only.image, plain.image)


def test_files_say_for_which_pictures_they_are(tmp_path):
    Image.fromarray(taken(BARREL)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(tmp_path / "b.png")
    (tmp_path / "ros.yaml").write_text(ROS)
    config = SourceConfig(intrinsics=tmp_path / "ros.yaml")
    assert len(list(open_source(tmp_path / "a.png", config))) == 1
    with pytest.raises(SourceError, match=r"for pictures of 160×120, and b\.png is 80×60"):
        list(open_source(tmp_path / "b.png", config))
    read = with_known_lens(config)
    assert (read.intrinsics, read.distortion, read.fisheye) == (NUMBERS, FISHEYE, True)
    own = with_known_lens(SourceConfig(intrinsics=Path(tmp_path / "ros.yaml"), distortion=BARREL))
    assert (own.distortion, own.fisheye) == (BARREL, False)


def test_impossible_settings_are_refused():
    with pytest.raises(ThreerError, match="give --intrinsics"):
        SourceConfig(distortion=BARREL)
    with pytest.raises(ThreerError, match=r"distortion must be k1,k2,p1,p2\[,k3…\]"):
        SourceConfig(intrinsics=NUMBERS, distortion=(0.1, 0.2))
    with pytest.raises(ThreerError, match="distortion must be k1,k2,k3,k4"):
        SourceConfig(intrinsics=NUMBERS, distortion=BARREL, fisheye=True)
    with pytest.raises(ThreerError, match="fisheye is a kind of distortion"):
        SourceConfig(intrinsics=NUMBERS, fisheye=True)
    with pytest.raises(ThreerError, match="finite"):
        SourceConfig(intrinsics=NUMBERS, distortion=(0.1, float("nan"), 0, 0))


@pytest.mark.parametrize(("coefficients", "fisheye"), [(BARREL, False), (FISHEYE, True)])
def test_a_camera_found_in_an_undone_picture_is_the_true_one(tmp_path, coefficients, fisheye):
    """Bright dots at known places, seen through the lens: a pinhole camera explains where they are then."""
    rng = np.random.default_rng(0)
    v, u = np.indices(SIZE[::-1]).astype(float)
    at = np.stack(np.meshgrid(np.linspace(12, 147, 7), np.linspace(12, 107, 5)), axis=-1).reshape(-1, 2)
    points = np.column_stack([(at - K[:2, 2]) / K[[0, 1], [0, 1]], np.ones(len(at))]) * rng.uniform(2, 4, (35, 1))
    turn, shift = np.array([0.05, -0.1, 0.02]), np.array([0.1, -0.05, 0.2])
    world = (points - shift) @ cv2.Rodrigues(turn)[0]
    project = cv2.fisheye.projectPoints if fisheye else cv2.projectPoints
    arguments = (K, np.array(coefficients))
    seen = project(world[:, None], turn, shift, *arguments)[0].reshape(-1, 2)
    glow = sum(np.exp(-((u - x) ** 2 + (v - y) ** 2) / 4) for x, y in seen)
    picture = np.repeat(np.rint(250 * np.minimum(glow, 1))[..., None], 3, axis=-1).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "dots.png")

    def error(config):
        image = next(iter(open_source(tmp_path / "dots.png", config))).image[..., 0].astype(float)
        found = []
        for x, y in at:  # the middle of the light around where a pinhole would see the dot
            near = image * (np.hypot(u - x, v - y) < 9)
            found.append([(near * u).sum() / near.sum(), (near * v).sum() / near.sum()])
        rotation, position = cv2.solvePnP(world, np.array(found), K, None)[1:]
        return np.degrees(np.linalg.norm(rotation[:, 0] - turn)), np.linalg.norm(position[:, 0] - shift)

    degrees, distance = error(SourceConfig(intrinsics=NUMBERS, distortion=coefficients, fisheye=fisheye))
    assert degrees < 0.05
    assert distance < 0.005
    plain = error(SourceConfig(intrinsics=NUMBERS))
    assert plain[1] > 5 * distance
