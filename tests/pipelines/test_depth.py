"""Depth of a photo by a network that knows the truth, and by one that does not always."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import threer
from pair_world import TruthfulPairs, picture
from threer.data.synthetic.clips import WALK, Clip, render_clip
from threer.errors import CheckpointError, ReconstructionError, SourceError
from threer.evaluation.depth import depth_errors
from threer.types import Pointmap, Prediction, View

SIZE = (256, 192)


@pytest.fixture(scope="module")
def clip() -> Clip:
    return render_clip(9, 4, SIZE, dataclasses.replace(WALK, antialias=False))


def test_one_photo_is_shown_twice(clip: Clip) -> None:
    model = TruthfulPairs(clip)
    found = threer.monocular_depth(picture(clip, 1), model)
    assert found.depth.shape == (96, 128)
    assert (found.views, model.encoded, found.size) == (0, 1, SIZE)
    truth = clip.depth[1].numpy()
    whole = found.at_original()
    assert whole.shape == truth.shape
    assert depth_errors(whole, np.where(np.isfinite(whole), truth, 0), align="none").delta_1_25 > 0.99
    np.testing.assert_allclose(found.K, clip.K[1], rtol=0.01)


def test_pairs_are_brought_to_one_unit_and_averaged_by_confidence(clip: Clip) -> None:
    class Wrong(TruthfulPairs):
        """Says twice the depth about the last pair's upper half, unsurely, and turns a spot behind the camera."""

        def __call__(self, views: list[View]) -> list[Prediction]:
            own, other = super().__call__(views)
            if len(self.units) < 3:
                return [own, other]
            xyz, conf = own.points.xyz.clone(), own.points.conf.clone()
            xyz[:, :40] *= 2
            conf[:, :40] = 1.0
            xyz[:, 50:60, :20] *= -1
            return [dataclasses.replace(own, points=Pointmap(xyz, conf)), other]

    model = Wrong(clip)
    found = threer.multi_view_depth(picture(clip, 0), [picture(clip, k) for k in (1, 2, 3)], model)
    assert model.units == [1.0, 1.5, 2.0]
    assert (found.views, model.encoded) == (3, 4)
    alone = threer.monocular_depth(picture(clip, 0), TruthfulPairs(clip)).depth
    # Wrong by a factor of two with a tenth of the others' confidence, in one pair of three: 1 part in 21.
    np.testing.assert_allclose(found.depth[:40], alone[:40] * (1 + 1 / 21), rtol=1e-4)
    np.testing.assert_allclose(found.depth[40:], alone[40:], rtol=1e-4)
    np.testing.assert_allclose(found.conf[:40], 7.0, rtol=1e-5)
    np.testing.assert_allclose(found.K, clip.K[0], rtol=0.01)


def test_what_gives_no_depth_is_said(clip: Clip) -> None:
    class Behind(TruthfulPairs):
        def __call__(self, views: list[View]) -> list[Prediction]:
            own, other = super().__call__(views)
            return [dataclasses.replace(own, points=Pointmap(-own.points.xyz, own.points.conf)), other]

    with pytest.raises(ReconstructionError, match="monocular_depth takes one"):
        threer.multi_view_depth(picture(clip, 0), [], TruthfulPairs(clip))
    with pytest.raises(ReconstructionError, match="in front of the camera"):
        threer.multi_view_depth(picture(clip, 0), [picture(clip, 1)], Behind(clip))
    assert np.isnan(threer.monocular_depth(picture(clip, 0), Behind(clip)).depth).all()
    with pytest.raises(SourceError, match=r"must be RGB \[H, W, 3\] uint8, got float64"):
        threer.monocular_depth(np.zeros((32, 32, 3)), TruthfulPairs(clip))
    with pytest.raises(CheckpointError, match="are not of DUSt3R's kind"):
        threer.monocular_depth(picture(clip, 0), "slam3r-mini")
    nothing = TruthfulPairs(clip)
    nothing.encode = lambda images: torch.zeros(1, 48, 12)  # type: ignore[method-assign]
    nothing._points = lambda *_: Pointmap(torch.full((1, 96, 128, 3), torch.nan), torch.ones(1, 96, 128))  # type: ignore[method-assign]
    with pytest.raises(CheckpointError, match="not finite"):
        threer.monocular_depth(picture(clip, 0), nothing)
