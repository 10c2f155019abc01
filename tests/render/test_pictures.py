from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from threer.render.overview import overview
from threer.render.pictures import caption, colorize, panels, save_png
from threer.types import Trajectory


def room(unit: float = 1.0, ceiling: bool = False) -> tuple[np.ndarray, np.ndarray, Trajectory]:
    """A floor and two walls, y down, a camera going along the floor; red floor, green and blue walls."""
    a, b = (v.ravel() for v in np.meshgrid(np.linspace(0, 4, 150), np.linspace(0, 4, 150)))
    zero = np.zeros_like(a)
    faces = [
        (np.stack([a, zero, b], axis=1), (255, 0, 0)),
        (np.stack([a, -b / 2, zero + 4], axis=1), (0, 255, 0)),
        (np.stack([zero, -b / 2, a], axis=1), (0, 0, 255)),
    ]
    if ceiling:
        faces.append((np.stack([a, zero - 2, b], axis=1), (255, 255, 0)))
    c2w = np.tile(np.eye(4), (20, 1, 1))
    c2w[:, :3, 3] = np.stack([np.full(20, 2.0), np.full(20, -1.0), np.linspace(0.5, 3, 20)], axis=1)
    c2w[:, :3, 3] *= unit
    xyz = unit * np.concatenate([points for points, _ in faces])
    rgb = np.concatenate([np.tile(np.array(c, dtype=np.uint8), (len(points), 1)) for points, c in faces])
    return xyz, rgb, Trajectory(np.arange(20) / 10, c2w)


def share(picture: np.ndarray, channels: tuple[int, ...]) -> float:
    """Of pixels that are bright in these channels and dark in the others."""
    bright = [picture[..., c] > 120 if c in channels else picture[..., c] < 40 for c in range(3)]
    return float(np.logical_and.reduce(bright).mean())


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_overview_shows_all_sides_in_any_unit(unit: float) -> None:
    picture = overview(*room(unit), size=(640, 360))
    assert picture.shape == (360, 640, 3)
    assert picture.dtype == np.uint8
    assert share(picture, (0,)) > 0.15
    assert share(picture[:, :420], (1,)) > 0.03
    assert share(picture[:, :420], (2,)) > 0.03


def test_a_ceiling_does_not_hide_the_room() -> None:
    picture = overview(*room(ceiling=True), size=(640, 360))
    assert share(picture, (0,)) > 0.15
    assert share(picture, (0, 1)) < 0.01


def test_the_path_is_drawn_and_cameras_not_found_are_not() -> None:
    xyz, rgb, trajectory = room()
    plain = overview(xyz, rgb, None, size=(640, 360))
    lost = Trajectory(trajectory.timestamps, np.full_like(trajectory.c2w, np.nan))
    assert np.array_equal(overview(xyz, rgb, lost, size=(640, 360)), plain)
    grey = np.full_like(rgb, 128)
    colourful = np.ptp(overview(xyz, grey, trajectory, size=(640, 360)).astype(int), axis=-1) > 60
    assert 0.002 < colourful.mean() < 0.1
    trajectory.c2w[3] = np.nan
    assert (np.ptp(overview(xyz, grey, trajectory, size=(640, 360)).astype(int), axis=-1) > 60).mean() > 0.002


def test_a_stray_camera_and_stray_points_do_not_shrink_the_scene() -> None:
    xyz, rgb, trajectory = room()
    trajectory.c2w[7, :3, 3] = 1e4
    xyz[::5000] = 500.0
    assert share(overview(xyz, rgb, trajectory, size=(640, 360)), (0,)) > 0.1


@pytest.mark.parametrize("points", [np.empty((0, 3)), np.full((9, 3), np.nan), np.zeros((2, 3))])
def test_nothing_to_show_is_said(points: np.ndarray) -> None:
    picture = overview(points, np.zeros((len(points), 3), dtype=np.uint8), size=(320, 180))
    assert picture.shape == (180, 320, 3)
    assert (picture < 120).any()  # letters


@pytest.mark.parametrize("points", [np.ones((50, 3)), np.linspace(0, 1, 60).reshape(-1, 1) * np.ones(3)])
def test_a_single_spot_or_a_line_does_not_crash(points: np.ndarray) -> None:
    rgb = np.zeros((len(points), 3), dtype=np.uint8)
    still = Trajectory(np.arange(3.0), np.tile(np.eye(4), (3, 1, 1)))
    for trajectory in (None, still):
        assert overview(points, rgb, trajectory, size=(320, 180)).shape == (180, 320, 3)


def test_colours_run_from_blue_to_red_and_unknown_is_grey() -> None:
    colours = colorize(np.array([0.0, 0.25, 0.5, 0.75, 1.0, np.nan, np.inf]), 0, 1).astype(int)
    assert colours[1, 2] > colours[1, 0]
    assert colours[2, 1] > 200
    assert colours[3, 0] > colours[3, 2]
    assert colours[5].tolist() == colours[6].tolist() == [70, 70, 70]
    assert colorize(np.full((2, 2), np.nan)).tolist() == np.full((2, 2, 3), 70).tolist()
    assert np.array_equal(colorize(np.full(3, 5.0)), colorize(np.full(3, 9.0)))


def test_panels_need_one_height() -> None:
    with pytest.raises(ValueError, match=r"one height, got \[4, 5\]"):
        panels([np.zeros((4, 4, 3), dtype=np.uint8), np.zeros((5, 4, 3), dtype=np.uint8)])


def test_png_comes_back_as_written(tmp_path: Path) -> None:
    picture = caption("hello", (80, 30))
    save_png(tmp_path / "a.png", picture)
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(np.asarray(image), picture)
