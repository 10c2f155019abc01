"""One photo or two: a known scene comes back in closed form, whichever photo is first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

import golden_adapter
from golden_cases import load_case, relative_error
from threer.config import AlignmentConfig, InputSpec
from threer.errors import CheckpointError, ReconstructionError
from threer.geometry.projection import centred_intrinsics, unproject
from threer.models import DUSt3R, DUSt3RConfig
from threer.pipelines.alignment.session import AlignmentSession
from threer.pipelines.pairwise import Edge, PairSession, place_pair
from threer.types import Frame, Pointmap, Prediction, Update, View

SIZES = [(64, 48), (48, 64)]
FOCALS = [70.0, 55.0]
SECOND = np.eye(4)
SECOND[:3, :3] = Rotation.from_rotvec([0.1, -0.3, 0.05]).as_matrix()
SECOND[:3, 3] = [0.6, -0.1, 0.2]
POSES = [np.eye(4), SECOND]


def frame(index: int) -> Frame:
    w, h = SIZES[index]
    image = torch.full((3, h, w), 0.25 * index)  # by which the exact model knows it
    return Frame(image, index, float(index), f"{'ab'[index]}.png", (w, h), np.eye(2, 3))


def depth(index: int) -> Tensor:
    w, h = SIZES[index]
    return 3 + torch.rand(h, w, generator=torch.Generator().manual_seed(index), dtype=torch.float64)


def own_points(index: int) -> Tensor:
    K = torch.from_numpy(centred_intrinsics(FOCALS[index], *SIZES[index]))
    return unproject(depth(index), K)


class ExactModel:
    """Knows the scene, in another unit for every pair; surer of pairs that begin with photo ``sure``."""

    input = InputSpec(64, square=False)

    def __init__(self, sure: int = 0) -> None:
        self.sure = sure
        self.encoded = 0

    def parameters(self):
        yield torch.zeros(1)

    def encode(self, images: Tensor) -> Tensor:
        self.encoded += len(images)
        return torch.zeros(len(images), 12, 4)

    def __call__(self, views: Sequence[View]) -> list[Prediction]:
        numbers = []
        for view in views:
            assert view.tokens is not None, "each photo is encoded once, by the session"
            assert view.image is not None
            numbers.append(round(float((view.image.mean() + 1) / 2 / 0.25)))
        first = numbers[0]
        unit = 1.0 + first
        predictions = []
        for n in numbers:
            relative = np.linalg.inv(POSES[first]) @ POSES[n]
            xyz = own_points(n).numpy() @ relative[:3, :3].T + relative[:3, 3]
            conf = torch.full((1, *xyz.shape[:2]), 5.0 if first == self.sure else 4.0)
            predictions.append(Prediction(Pointmap(torch.from_numpy(unit * xyz).float()[None], conf), "first"))
        return predictions


def run(session: PairSession, frames: Sequence[Frame]) -> list[Update]:
    for f in frames:
        assert session.push(f) == []
    return session.finish()


@pytest.mark.parametrize("anchor", [0, 1])
def test_a_known_pair_comes_back(anchor: int) -> None:
    model = ExactModel(sure=anchor)
    session = PairSession(model)
    updates = run(session, [frame(0), frame(1)])
    assert session.report == {"anchor": updates[anchor].frame.name, "unplaced": {}, "ambiguous": []}
    assert model.encoded == 2
    unit = 1.0 + anchor
    for i, update in enumerate(updates):
        relative = np.linalg.inv(POSES[anchor]) @ POSES[i]
        truth = own_points(i).numpy() @ relative[:3, :3].T + relative[:3, 3]
        relative[:3, 3] *= unit
        np.testing.assert_allclose(update.c2w, relative, atol=1e-3)
        np.testing.assert_allclose(update.K, centred_intrinsics(FOCALS[i], *SIZES[i]), rtol=1e-4)
        np.testing.assert_allclose(update.points.xyz, unit * truth, atol=5e-3)
        assert float(update.points.conf.min()) == 5.0, "the larger confidence of both orders"
    np.testing.assert_array_equal(updates[anchor].c2w, np.eye(4))


def test_swapping_the_photos_inverts_their_relation() -> None:
    a = run(PairSession(ExactModel(0)), [frame(0), frame(1)])
    b = run(PairSession(ExactModel(0)), [frame(1), frame(0)])
    forth, back = (np.linalg.inv(x.c2w) @ y.c2w for x, y in (a, b))
    np.testing.assert_allclose(forth @ back, np.eye(4), atol=1e-6)


def test_one_photo_is_paired_with_itself() -> None:
    (update,) = run(PairSession(ExactModel()), [frame(1)])
    np.testing.assert_array_equal(update.c2w, np.eye(4))
    np.testing.assert_allclose(update.K, centred_intrinsics(FOCALS[1], *SIZES[1]), rtol=1e-4)
    np.testing.assert_allclose(update.points.depth, 2 * depth(1), rtol=1e-5)


def test_known_intrinsics_are_honoured() -> None:
    K = centred_intrinsics(FOCALS[0], *SIZES[0])
    (update,) = run(PairSession(ExactModel(), intrinsics=K), [frame(0)])
    np.testing.assert_array_equal(update.K, K)


def test_one_focal_length_for_both_if_asked_for() -> None:
    apart = run(PairSession(ExactModel()), [frame(0), frame(1)])
    shared = run(PairSession(ExactModel(), shared_focal=True), [frame(0), frame(1)])
    assert abs(apart[0].K[0, 0] - apart[1].K[0, 0]) > 10
    assert shared[0].K[0, 0] == shared[1].K[0, 0] == pytest.approx(np.mean(FOCALS), rel=1e-3)
    through = run(
        AlignmentSession(ExactModel(), AlignmentConfig(shared_focal=True)),
        [frame(0), frame(1)],
    )
    assert through[0].K[0, 0] == shared[0].K[0, 0]


@pytest.mark.parametrize("count", [1, 2])
def test_intrinsics_that_the_points_contradict_give_no_camera(count: int) -> None:
    wrong = centred_intrinsics(4 * FOCALS[0], *SIZES[0])
    session = PairSession(ExactModel(), intrinsics=wrong)
    updates = run(session, [frame(0), frame(1)][:count])
    for update in updates:
        assert np.isnan(update.c2w).all()
        assert "intrinsics given do not fit: a focal length of 280" in update.message
        assert torch.isfinite(update.points.xyz).all()
    assert len(session.report["unplaced"]) == count


def test_two_photos_from_one_place_are_ambiguous() -> None:
    class Turning(ExactModel):
        """Sees both photos from where the first one was taken."""

        def __call__(self, views: Sequence[View]) -> list[Prediction]:
            first, second = super().__call__(views)
            n = round(float((views[1].image.mean() + 1) / 2 / 0.25))
            turn = POSES[1][:3, :3] if n else POSES[1][:3, :3].T
            xyz = own_points(n).numpy() @ turn.T
            return [first, Prediction(Pointmap(torch.from_numpy(xyz).float()[None], second.points.conf), "first")]

    session = PairSession(Turning())
    run(session, [frame(0), frame(1)])
    assert session.report["ambiguous"] == [
        "a.png and b.png were taken from one place, or are the same: nothing confirms their depth but the "
        "network's guess"
    ]

    class Seeing(ExactModel):
        """Believes in a way between a picture and itself."""

        def __call__(self, views: Sequence[View]) -> list[Prediction]:
            first, second = super().__call__(views)
            xyz = second.points.xyz + torch.tensor([0.3, 0.0, 0.0])
            return [first, Prediction(Pointmap(xyz, second.points.conf), "first")]

    session = PairSession(Seeing())
    run(session, [frame(0), frame(0)])
    (doubt,) = session.report["ambiguous"]
    assert "are the same picture" in doubt


def test_an_impossible_camera_is_marked_not_made_up() -> None:
    class Scrambled(ExactModel):
        def __call__(self, views: Sequence[View]) -> list[Prediction]:
            predictions = super().__call__(views)
            xyz = predictions[1].points.xyz
            order = torch.randperm(xyz[0, ..., 0].numel(), generator=torch.Generator().manual_seed(0))
            predictions[1].points.xyz[:] = xyz.reshape(-1, 3)[order].reshape(xyz.shape)
            return predictions

    session = PairSession(Scrambled())
    first, second = run(session, [frame(0), frame(1)])
    assert list(session.report["unplaced"]) == ["b.png"]
    assert "agree with any camera" in second.message
    np.testing.assert_array_equal(first.c2w, np.eye(4))
    assert np.isnan(second.c2w).all()
    assert np.isfinite(second.K).all()
    assert torch.isfinite(second.points.xyz).all()


def test_points_lie_on_the_rays_of_their_pixels() -> None:
    generator = torch.Generator().manual_seed(4)
    K = [centred_intrinsics(f, *size) for f, size in zip(FOCALS, SIZES, strict=True)]
    model = ExactModel()
    views = [View(frame(i).image[None] * 2 - 1, tokens=torch.zeros(1, 12, 4)) for i in (0, 1)]
    edges = []
    for i in (0, 1):
        own, other = (p.points for p in model([views[i], views[1 - i]]))
        for points in (own, other):
            points.xyz[..., :2] += 0.01 * torch.randn(points.xyz[..., :2].shape, generator=generator)
        edges.append(Edge(Pointmap(own.xyz[0], own.conf[0]), Pointmap(other.xyz[0], other.conf[0])))
    edges[0].own.xyz[5, 6] *= -1  # behind the camera
    photos = place_pair(edges, K, 0)
    for i, photo in enumerate(photos):
        inside = np.linalg.inv(photo.c2w)
        points = photo.points.xyz.numpy() @ inside[:3, :3].T + inside[:3, 3]
        expected = unproject(torch.from_numpy(points[..., 2]), torch.from_numpy(K[i]))
        np.testing.assert_allclose(points, expected, atol=1e-5)
    assert float(photos[0].points.conf[5, 6]) == 0
    assert int((photos[0].points.conf == 0).sum()) == 1


def test_more_than_two_are_refused() -> None:
    session = PairSession(ExactModel())
    session.push(frame(0))
    session.push(frame(1))
    with pytest.raises(ReconstructionError, match=r"global alignment .* takes more"):
        session.push(frame(0))
    with pytest.raises(ReconstructionError, match="no frame"):
        PairSession(ExactModel()).finish()


def test_broken_weights_are_named() -> None:
    class Broken(ExactModel):
        def __call__(self, views: Sequence[View]) -> list[Prediction]:
            predictions = super().__call__(views)
            predictions[1].points.conf[0, 1, 1] = torch.inf
            return predictions

    with pytest.raises(CheckpointError, match=r"\(b\.png\)"):
        run(PairSession(Broken()), [frame(0), frame(1)])


def test_dust3r_takes_photos_of_two_sizes() -> None:
    torch.manual_seed(1)
    sizes = {"enc_dim": 16, "enc_depth": 1, "enc_heads": 2, "dec_dim": 16, "dec_depth": 2, "dec_heads": 2}
    model = DUSt3R(DUSt3RConfig(image_size=64, ray_prior=0.6, **sizes)).eval()
    updates = run(PairSession(model), [frame(0), frame(1)])
    for i, update in enumerate(updates):
        assert tuple(update.points.conf.shape) == SIZES[i][::-1]
        views = [View(frame(k).image[None] * 2 - 1) for k in (i, 1 - i)]
        with torch.no_grad():
            torch.testing.assert_close(update.local.xyz, model(views)[0].points.xyz[0])


def test_the_published_closed_form() -> None:
    case = load_case("geom_ga_pairviewer")
    results = golden_adapter.run(case.config, case.inputs, case.weights)
    assert results.keys() == case.outputs.keys()
    for key, got in results.items():
        assert relative_error(got, case.outputs[key]) < 1e-5, key
    relation = torch.linalg.inv(case.inputs["gt.c2w"][0]) @ case.inputs["gt.c2w"][1]
    assert (results["final.im_poses"][1, :3, :3] - relation[:3, :3]).abs().max() < 0.02
