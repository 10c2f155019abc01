"""Which pictures of a run share a focal length when it is refined, and where its report says that the result is."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rendered_runs
from threer.io.runs import RunWriter, Scene
from threer.pipelines.refine import apply, second_run
from threer.pipelines.refine.apply import _lenses, _Refined, _share_lens, refine
from threer.pipelines.refine.refit import Correction
from threer.pipelines.refine.verdict import Verdict
from threer.types import FloatArray

FOCALS = np.array([300.0, 300.0, 302.0, 420.0, 420.0, 300.0])
PORTRAIT = 5


def run_with(out: Path, settings: dict[str, Any], focals: FloatArray = FOCALS) -> Scene:
    writer = RunWriter(out, settings)
    for update, focal in zip(rendered_runs.updates(), focals, strict=False):
        K = update.K.copy()
        K[[0, 1], [0, 1]] = focal
        width, height = update.frame.original_size
        size = (height, width) if update.frame.index == PORTRAIT else (width, height)
        writer.on(dataclasses.replace(update, frame=dataclasses.replace(update.frame, original_size=size), K=K))
    return writer.finish("complete", {})


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"method": "sfm", "focal": "auto"}, [0, 0, 0, 1, 1, 2]),  # 302 is 300 measured again
        ({"method": "slam3r", "focal": "auto"}, [0, 0, 0, 0, 0, 1]),  # a running median has other values early on
        ({"method": "dust3r", "focal": "per-image"}, [0, 1, 2, 3, 4, 5]),
        ({"method": "sfm", "intrinsics": [300, 300, 191.5, 143.5]}, None),
    ],
)
def test_pictures_of_one_size_and_zoom_share_a_lens(
    tmp_path: Path, settings: dict[str, Any], expected: list[int] | None
) -> None:
    scene = run_with(tmp_path / "run", settings)
    found = _lenses(scene, np.arange(len(scene)))
    if expected is None:
        assert found is None
        return
    assert found is not None
    together = found[:, None] == found
    np.testing.assert_array_equal(together, np.equal.outer(expected, expected))


def test_zooms_in_small_steps_are_not_one_lens(tmp_path: Path) -> None:
    scene = run_with(tmp_path / "run", {"method": "sfm"}, 300 * 1.02 ** np.arange(5))
    found = _lenses(scene, np.arange(len(scene)))
    assert found is not None
    assert found.tolist() == [0, 0, 1, 1, 2]


def test_a_repeated_picture_takes_the_lens_of_its_zoom(tmp_path: Path) -> None:
    scene = run_with(tmp_path / "run", {"method": "sfm"})
    K = scene.cameras.K.copy()
    K[0, 0, 0], K[3, 0, 0] = 310.0, 430.0
    _share_lens(scene, K, np.array([0, 3, 5]))
    assert K[:, 0, 0].tolist() == [310, 310, 310, 430, 430, 300]


def test_the_report_names_the_refined_run_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pycolmap", reason="refinement needs pycolmap: pip install 'threer[refine]'")
    scene = run_with(tmp_path / "run", {"method": "sfm"})
    verdict = Verdict(True, "", 9, 9, (1.0, 1.0), (1.0, 1.0), 9, 0.0, 0.0, 0, (300.0, 300.0))
    cameras, as_it_was = scene.cameras, [Correction(1.0, None)] * len(scene)
    monkeypatch.setattr(apply, "match_frames", lambda *_: None)
    monkeypatch.setattr(apply, "_refined", lambda *_: _Refined(verdict, cameras.c2w, cameras.K, as_it_was))
    monkeypatch.setattr(second_run, "overview", lambda *_: np.zeros((8, 8, 3), np.uint8))
    monkeypatch.chdir(tmp_path)
    refine(scene, Path("better"))
    assert Path(scene.report["refined"]["folder"]) == (tmp_path / "better").resolve()
