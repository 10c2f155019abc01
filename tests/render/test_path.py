"""The way of the camera in the picture of a reconstruction: in the frame, of clear colours, its ends marked."""

import numpy as np
import pytest

from threer.render import path
from threer.render.overview import overview
from threer.render.splat import Layer
from threer.types import Trajectory

GREY = 128
SIZE = (640, 360)
K = np.array([[100.0, 0, 49.5], [0, 100, 49.5], [0, 0, 1]])


def wall(distance: float) -> tuple[np.ndarray, np.ndarray]:
    """Grey, 1 × 1 × 0.2 in size."""
    x, y = (v.ravel() for v in np.meshgrid(np.linspace(-0.5, 0.5, 90), np.linspace(-0.5, 0.5, 90)))
    xyz = np.stack([x, y, distance + 0.2 * x * y], axis=1)
    return xyz, np.full(xyz.shape, GREY, dtype=np.uint8)


def sideways(depth: float = 0.0) -> np.ndarray:
    """[20, 4, 4] cameras that go from left to right."""
    c2w = np.tile(np.eye(4), (20, 1, 1))
    c2w[:, 0, 3], c2w[:, 2, 3] = np.linspace(-0.3, 0.3, 20), depth
    return c2w


def share(picture: np.ndarray, strong: int, weak: int) -> float:
    """Of pixels far stronger in one channel than in another."""
    return float((picture[..., strong].astype(int) - picture[..., weak] > 110).mean())


@pytest.mark.parametrize("distance", [0.3, 1.0, 2.0])
def test_a_path_before_the_cloud_is_in_the_picture(distance: float) -> None:
    """The cloud of a still camera begins as far in front of it as it is deep, or further."""
    picture = overview(*wall(distance), Trajectory(np.arange(20) / 10, sideways()), SIZE)
    for panel in (picture[:, :420], picture[:, 424:]):
        assert share(panel, 2, 0) > 4e-4  # blue
        assert share(panel, 0, 2) > 4e-4  # red
    assert np.mean(np.abs(picture.astype(int) - GREY).max(axis=-1) < 60) > 0.05  # the wall is not lost over it


def test_cameras_far_from_cloud_and_other_cameras_are_not_framed() -> None:
    c2w = sideways()
    usual = overview(*wall(1.0), Trajectory(np.arange(20) / 10, c2w), SIZE)
    c2w[7, :3, 3] = 100
    stray = overview(*wall(1.0), Trajectory(np.arange(20) / 10, c2w), SIZE)
    grey = [np.mean(np.abs(p.astype(int) - GREY).max(axis=-1) < 60) for p in (usual, stray)]
    assert grey[1] > 0.8 * grey[0]


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("colour", [(0, 0, 0), (128, 128, 128), (255, 255, 255)])
def test_a_path_stands_out_whether_or_not_the_scene_hides_it(hidden: bool, colour: tuple[int, int, int]) -> None:
    scene = Layer(np.full((200, 200), 0.5 if hidden else 5.0), np.full((200, 200, 3), colour, dtype=np.float32))
    drawn = path.draw(sideways(depth=1.0), K, np.eye(4), (100, 100))
    seen = path.over(drawn, scene, (0, 0, 0))
    line = np.isfinite(drawn.depth)
    assert np.array_equal(seen.rgb[~line], scene.rgb[~line])
    row = seen.rgb[100, 40:160]  # along the line
    assert (np.ptp(row, axis=-1) > 90).mean() > 0.95
    assert row[1, 2] - row[1, 0] > 90
    assert row[-2, 0] - row[-2, 2] > 90


def test_a_line_of_the_colour_of_the_scene_has_a_rim() -> None:
    drawn = path.draw(sideways(depth=1.0), K, np.eye(4), (100, 100))
    column = drawn.rgb[:, 60][np.isfinite(drawn.depth[:, 60])]
    assert column[0].min() > 240
    assert column[-1].min() > 240
    assert column[len(column) // 2].min() < 120


def test_start_is_marked_blue_and_end_red() -> None:
    cameras = sideways(depth=1.0)
    blank = np.full((100, 100, 3), 255, dtype=np.uint8)
    picture = path.mark_ends(blank, cameras, K, np.eye(4)).astype(int)
    start, end = picture[47:53, 17:23], picture[47:53, 77:83]
    assert (start[..., 2] - start[..., 0] > 80).all()
    assert (end[..., 0] - end[..., 2] > 80).all()
    words = picture.max(axis=-1) < 120
    assert words[30:46, :17].any()  # "start", above to the left
    assert words[54:70, 83:].any()  # "end", below to the right
    alone = path.mark_ends(blank, cameras[:1], K, np.eye(4))
    assert (alone[54:, 54:] == 255).all()
    assert np.array_equal(path.mark_ends(blank, sideways(depth=-1.0), K, np.eye(4)), blank)  # behind the view
    cameras[-1, 0, 3] = 1e30
    found = path.mark_ends(blank, cameras, K, np.eye(4))
    assert np.array_equal(found, path.mark_ends(blank, cameras[:1], K, np.eye(4)))
