"""All photos at once: a known scene is put together exactly, and what does not go together is said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import golden_adapter
from golden_cases import case_names, load_case, relative_error
from threer.config import InputSpec, JointConfig
from threer.errors import CheckpointError, ReconstructionError, ThreerError
from threer.geometry.projection import centred_intrinsics, unproject
from threer.models import Fast3R, Fast3RConfig
from threer.nn.dpt import DPTDims
from threer.pipelines.cameras import estimate_focal
from threer.pipelines.joint import JointSession, align_local
from threer.types import Frame, Pointmap, Prediction, Sim3, Update, View

FOCAL = 60.0
SIZES = [(48, 32), (32, 48), (48, 32), (48, 48)]  # (W, H), mixed orientations


def frame(index: int, size: tuple[int, int], seed: int = 0) -> Frame:
    generator = torch.Generator().manual_seed(seed + index)
    image = torch.rand(3, size[1], size[0], generator=generator)
    doubled = np.array([[2.0, 0, 0.5], [0, 2.0, 0.5]])  # the original is twice as large
    return Frame(image, index, float(index), f"{index}.png", (2 * size[0], 2 * size[1]), doubled)


FRAMES = [frame(i, size) for i, size in enumerate(SIZES)]


def pose(index: int) -> np.ndarray:
    c2w = np.eye(4)
    c2w[:3, :3] = Rotation.from_rotvec([0.05 * index, -0.12 * index, 0.03 * index]).as_matrix()
    c2w[:3, 3] = [0.3 * index, -0.1 * index, 0.05 * index]
    return c2w


class ExactModel:
    """Knows the scene: common points, own ones in an arbitrary unit; its confidence tells where it lies."""

    input = InputSpec(48, square=False)
    unsure = 0.08  # this share of every map is wrong, and has low confidence in the global map

    def __init__(self) -> None:
        self.depths: list[torch.Tensor] = []
        self.asked: dict[str, int] = {}

    def parameters(self):
        yield torch.zeros(1)

    def __call__(self, views: Sequence[View], **settings: int) -> list[Prediction]:
        self.asked = settings
        predictions = []
        for i, view in enumerate(views):
            h, w = view.shape[0].tolist()
            generator = torch.Generator().manual_seed(40 + i)
            depth = 2 + torch.rand(h, w, generator=generator, dtype=torch.float64)
            self.depths.append(depth)
            own = unproject(depth, torch.from_numpy(centred_intrinsics(FOCAL, w, h)))
            c2w = torch.from_numpy(pose(i))
            world = own @ c2w[:3, :3].T + c2w[:3, 3]
            wrong = torch.rand(h, w, generator=generator) < self.unsure
            world[wrong] += 5
            conf = torch.where(wrong, 1.01, 3.0 + torch.rand(h, w, generator=generator))
            predictions.append(
                Prediction(
                    Pointmap(world.float()[None], conf[None]),
                    "first",
                    local=Pointmap((own * (0.5 + i)).float()[None], torch.full((1, h, w), 2.0)),
                )
            )
        return predictions


def run(session: JointSession, frames: Sequence[Frame]) -> list[Update]:
    for f in frames:
        assert session.push(f) == []
    return session.finish()


def test_a_known_scene_is_put_together() -> None:
    model = ExactModel()
    session = JointSession(model)
    updates = run(session, FRAMES)
    assert [u.frame.index for u in updates] == [0, 1, 2, 3]
    assert {u.kind for u in updates} == {"final"}
    for i, update in enumerate(updates):
        np.testing.assert_allclose(update.c2w, pose(i), atol=2e-3)
        w, h = SIZES[i]
        np.testing.assert_allclose(
            update.K, [[2 * FOCAL, 0, w - 0.5], [0, 2 * FOCAL, h - 0.5], [0, 0, 1]], rtol=2e-3
        )
        own = unproject(model.depths[i], torch.from_numpy(centred_intrinsics(FOCAL, w, h)))
        truth = own.numpy() @ pose(i)[:3, :3].T + pose(i)[:3, 3]
        assert update.points is not None
        np.testing.assert_allclose(update.points.xyz, truth, atol=1e-4)  # also where the global map is wrong
        assert float(update.points.conf.max()) == 2.0
    assert session.report == {"views": 4, "unaligned": []}
    assert session.finish() == []
    with pytest.raises(ReconstructionError, match="has ended"):
        session.push(FRAMES[0])


def test_settings_reach_the_model_and_known_intrinsics_are_honoured() -> None:
    model = ExactModel()
    K = np.array([[2 * FOCAL, 0, 47.5], [0, 2 * FOCAL, 31.5], [0, 0, 1]])
    config = JointConfig(id_seed=7, encode_at_once=3, heads_at_once=2)
    (update,) = run(JointSession(model, config, intrinsics=K), FRAMES[:1])
    assert model.asked == {"seed": 7, "encode_at_once": 3, "heads_at_once": 2}
    np.testing.assert_array_equal(update.K, K)
    np.testing.assert_allclose(update.c2w, np.eye(4), atol=1e-3)


def test_similarity_is_recovered_from_confident_pixels_only() -> None:
    generator = torch.Generator().manual_seed(1)
    local = Pointmap(torch.rand(8, 8, 3, generator=generator), torch.ones(8, 8))
    truth = Sim3(2.5, Rotation.from_rotvec([0.3, 0.2, -0.5]).as_matrix(), np.array([1.0, -2, 3]))
    xyz = torch.from_numpy(truth.apply(local.xyz.double().numpy()))
    conf = torch.rand(8, 8, generator=generator)
    xyz[conf < 0.5] = 100 * torch.rand(int((conf < 0.5).sum()), 3, generator=generator, dtype=torch.float64)
    found = align_local(local, Pointmap(xyz, conf), 0.85)
    assert found is not None
    assert found.scale == pytest.approx(2.5, rel=1e-6)
    np.testing.assert_allclose(found.R, truth.R, atol=1e-6)
    np.testing.assert_allclose(found.t, truth.t, atol=1e-6)
    loose = align_local(local, Pointmap(xyz, conf), 0.0)
    assert loose is None or abs(loose.scale - 2.5) > 0.1


def test_a_view_that_does_not_fit_keeps_its_common_points() -> None:
    class Collapsed(ExactModel):
        def __call__(self, views: Sequence[View], **settings: int) -> list[Prediction]:
            predictions = super().__call__(views, **settings)
            local = predictions[1].local
            assert local is not None
            local.xyz[:] = 1.0
            return predictions

    session = JointSession(Collapsed())
    updates = run(session, FRAMES)
    assert session.report["unaligned"] == ["1.png"]
    assert float(updates[1].points.xyz[..., 2].mean()) > 2
    np.testing.assert_allclose(updates[1].c2w, pose(1), atol=2e-3)


def test_the_focal_length_is_of_the_first_view_without_its_least_sure_tenth() -> None:
    class Noisy(ExactModel):
        def __call__(self, views: Sequence[View], **settings: int) -> list[Prediction]:
            predictions = super().__call__(views, **settings)
            for prediction in predictions:
                xy = prediction.points.xyz[..., :2]
                xy += 0.05 * torch.randn(xy.shape, generator=torch.Generator().manual_seed(3))
            self.first = Pointmap(predictions[0].points.xyz[0].clone(), predictions[0].points.conf[0])
            return predictions

    model = Noisy()
    updates = run(JointSession(model), FRAMES)
    expected = estimate_focal(model.first, keep=0.9, iterations=100)
    assert abs(estimate_focal(model.first, keep=1.0, iterations=100) / expected - 1) > 1e-4
    for update in updates:
        assert update.K[0, 0] == update.K[1, 1] == pytest.approx(2 * expected, rel=1e-7)


def test_fast3r_gives_the_same_whatever_the_chunks() -> None:
    torch.manual_seed(2)
    sizes = {"enc_dim": 32, "enc_depth": 1, "enc_heads": 2, "dec_dim": 32, "dec_depth": 4, "dec_heads": 2}
    model = Fast3R(Fast3RConfig(image_size=48, head="dpt", dpt=DPTDims(8, 4, (4, 4, 8, 8)), **sizes)).eval()
    one = run(JointSession(model, JointConfig(encode_at_once=1, heads_at_once=1)), FRAMES)
    many = run(JointSession(model, JointConfig(encode_at_once=9, heads_at_once=9)), FRAMES)
    again = run(JointSession(model, JointConfig(encode_at_once=9, heads_at_once=9)), FRAMES)
    other = run(JointSession(model, JointConfig(id_seed=1)), FRAMES)
    for a, b, c, d in zip(one, many, again, other, strict=True):
        assert a.points.conf.shape == a.frame.image.shape[1:]
        torch.testing.assert_close(a.local.xyz, b.local.xyz, rtol=1e-4, atol=1e-5)
        assert torch.equal(b.local.xyz, c.local.xyz)
        assert a.frame.index == 0 or not torch.allclose(a.local.xyz, d.local.xyz, rtol=1e-6, atol=1e-8)


def test_only_the_decoder_sees_all_photos_at_once() -> None:
    torch.manual_seed(2)
    sizes = {"enc_dim": 32, "enc_depth": 1, "enc_heads": 2, "dec_dim": 32, "dec_depth": 4, "dec_heads": 2}
    model = Fast3R(Fast3RConfig(image_size=48, head="dpt", dpt=DPTDims(8, 4, (4, 4, 8, 8)), **sizes)).eval()
    together: dict[str, list[int]] = {}

    def watch(name: str, size: Callable[[Any], int]) -> None:
        seen = together.setdefault(name, [])
        getattr(model, name).register_forward_pre_hook(lambda _, given: seen.append(size(given[0])))

    watch("encoder", len)  # images [B, 3, H, W]
    watch("decoder", lambda tokens: tokens.shape[1])  # tokens [1, N, C] of all views
    watch("global_head", lambda taps: len(taps[0]))
    watch("local_head", lambda taps: len(taps[0]))
    run(JointSession(model), [frame(i, (32, 32)) for i in range(20)])
    assert together["global_head"] == together["local_head"] == [1] * 20
    assert together["encoder"] == [8, 8, 4]
    assert together["decoder"] == [20 * 4]


def test_what_cannot_be_done_is_said() -> None:
    with pytest.raises(ReconstructionError, match="no frame"):
        JointSession(ExactModel()).finish()
    session = JointSession(ExactModel())
    for _ in range(1000):
        session.push(FRAMES[0])
    with pytest.raises(ReconstructionError, match=r"1000 frames can be told apart, and 1\.png is one more"):
        session.push(FRAMES[1])
    strip = frame(9, (96, 16))
    with pytest.raises(ReconstructionError, match=r"9\.png is 96×16 after preparation and 7\.png 128×112"):
        run(JointSession(ExactModel()), [strip, frame(7, (128, 112))])
    with pytest.raises(ThreerError, match="align_quantile"):
        JointConfig(align_quantile=1.0)
    with pytest.raises(ThreerError, match="heads_at_once"):
        JointConfig(heads_at_once=0)


@pytest.mark.parametrize("part", ["points", "local"])
def test_broken_weights_are_named(part: str) -> None:
    class Broken(ExactModel):
        def __call__(self, views: Sequence[View], **settings: int) -> list[Prediction]:
            predictions = super().__call__(views, **settings)
            getattr(predictions[2], part).xyz[0, 3, 3, 1] = torch.nan
            return predictions

    with pytest.raises(CheckpointError, match=r"frame 2 \(2\.png\)"):
        run(JointSession(Broken()), FRAMES)


@pytest.mark.parametrize("name", case_names("geom_fast3r_poses"))
def test_published_places_and_cameras(name: str) -> None:
    case = load_case(name)
    results = golden_adapter.run(case.config, case.inputs, case.weights)
    assert results.keys() == case.outputs.keys()
    for key, got in results.items():
        drawn = 0.03 if name.endswith("noisy") else 1e-3  # cameras come from random draws
        tolerance = drawn if key.endswith("c2w") else 1e-4
        assert relative_error(got, case.outputs[key]) < tolerance, key
