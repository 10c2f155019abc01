"""Views that no camera took: what CUT3R's state makes of a camera alone (CUT3R 3.3, pipelines.md section 3.2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from threer.errors import CheckpointError, RunError, ThreerError
from threer.geometry import transforms
from threer.geometry.paths import interpolate_path
from threer.geometry.projection import invert_affine, transform_intrinsics
from threer.geometry.raymap import ray_map
from threer.io.runs import Scene
from threer.models import CUT3R, load_model
from threer.pipelines.state_file import SegmentState, load_state, require_state
from threer.types import FloatArray, View

FARTHEST = 1e6
"""Cameras farther from the first one than this along any axis, in the unit of the run, are taken for mistakes."""
MOST_PIXELS = 1 << 22
"""No view is larger: the network was trained on less than a tenth of it, and memory is not endless."""


@dataclass(frozen=True, eq=False)
class QueriedView:
    """What is expected to be seen from a camera.

    points  [H, W, 3] float32, world frame
    conf    [H, W] float32
    rgb     [H, W, 3] uint8
    depth   [H, W] float32, z in the camera's own frame
    """

    points: npt.NDArray[np.float32]
    conf: npt.NDArray[np.float32]
    rgb: npt.NDArray[np.uint8]
    depth: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Lens:
    """Intrinsics K [3, 3] of pictures of ``size`` (W, H), both as the network takes them in."""

    K: FloatArray
    size: tuple[int, int]


def query(scene: Scene, c2w: FloatArray, K: FloatArray, size: tuple[int, int]) -> QueriedView:
    """What the run of CUT3R in ``scene`` expects to be seen from a camera that was not there.

    c2w   [4, 4] camera-to-world
    K     [3, 3] intrinsics for a picture of ``size``
    size  (W, H), multiples of 16; the network knows best the size it was shown

    Loads the weights each time: `RememberedScene` asks several views. Raises `RunError` where nothing is
    remembered, `CheckpointError` for other weights than the run's, `ThreerError` for a camera that is none.
    """
    return RememberedScene.open(scene).query(c2w, K, size)


class RememberedScene:
    """A finished run of CUT3R and the network that remembers it: a state is of no use to other weights.

    scene  where it comes from
    begun  index of the first frame that is remembered: not 0 where the state was reset on the way
    """

    def __init__(self, scene: Scene, model: CUT3R, segment: SegmentState) -> None:
        self.scene = scene
        self.begun = segment.begun
        self._model = model
        self._segment = segment

    @classmethod
    def open(cls, scene: Scene, *, weights: str | Path | None = None, device: str = "cpu") -> RememberedScene:
        """Load what is needed; ``weights`` says where the run's weights are if they have moved."""
        require_state(scene.path)
        name = weights or scene.settings.get("weights") or scene.settings.get("method")
        if name is None:
            raise RunError(f"{scene.path} does not say with which weights it was made: name them")
        model = load_model(name, device=device)
        if not isinstance(model, CUT3R):
            raise CheckpointError(f"the weights {str(name)!r} are not CUT3R's, which alone can be asked for views")
        return cls(scene, model, load_state(scene.path, model))

    def query(self, c2w: FloatArray, K: FloatArray, size: tuple[int, int]) -> QueriedView:
        """As the function `query`."""
        placement = self.scene.placement
        if placement is None:
            return query_state(self._model, self._segment, c2w, K, size)
        # The network remembers the world in which the run was reconstructed.
        inside = placement.inverse().apply_to_cameras(np.asarray(c2w, dtype=np.float64))
        view = query_state(self._model, self._segment, inside, K, size)
        points = placement.apply(view.points).astype(np.float32)
        depth = (view.depth * placement.scale).astype(np.float32)
        return QueriedView(points, view.conf, view.rgb, depth)

    def lens(self, position: int) -> Lens:
        """How the network saw the frame at ``position``."""
        frame = self.scene.frame(position)
        height, width = frame.conf.shape
        return Lens(transform_intrinsics(frame.K, invert_affine(frame.to_original)), (width, height))

    def fly_through(self, count: int) -> Iterator[npt.NDArray[np.uint8]]:
        """``count`` pictures [H, W, 3] along the way of the camera, as far as it is remembered, through its lens.

        Raises `RunError` if no camera is known there.
        """
        indices, cameras = self.scene.table.indices, self.scene.cameras
        known = cameras.found & np.isfinite(cameras.K).all(axis=(1, 2)) & (indices >= self.begun)
        if not known.any():
            raise RunError(f"{self.scene.path} has no camera to go along: none was found")
        lens = self.lens(int(known.argmax()))
        for c2w in interpolate_path(cameras.c2w[known], count):
            yield self.query(c2w, lens.K, lens.size).rgb


def query_state(
    model: CUT3R, segment: SegmentState, c2w: FloatArray, K: FloatArray, size: tuple[int, int]
) -> QueriedView:
    """What the state of ``segment`` knows of a camera; the state stays as it is. Arguments as for `query`."""
    c2w, K = np.asarray(c2w, dtype=np.float64), np.asarray(K, dtype=np.float64)
    _check_camera(c2w, K, size, model.input.patch)
    in_segment = np.linalg.inv(segment.anchor) @ c2w
    distance = float(np.abs(in_segment[:3, 3]).max())
    if distance > FARTHEST:
        raise ThreerError(
            f"a camera {distance:.3g} from the first one is too far away to ask for: at most {FARTHEST:.0e}, in "
            "metres where the run is metric"
        )
    with torch.inference_mode():
        in_first = torch.from_numpy(in_segment)
        rays = ray_map(in_first, torch.from_numpy(K), size, model.config.true_rays)
        device = segment.state.tokens.device
        prediction = model.query(segment.state, View(ray_map=rays.float().unsqueeze(0).to(device)))
        assert prediction.local is not None
        assert prediction.rgb is not None
        local = prediction.local.xyz[0].double().cpu()
        conf = prediction.local.conf[0].cpu()
        colours = prediction.rgb[0].float().cpu()
        if not bool(local.isfinite().all() and conf.isfinite().all() and colours.isfinite().all()):
            raise CheckpointError(
                f"the network gave a view that is not finite: the weights {model.checkpoint.name!r} are broken; "
                "look at them with `threer models check`"
            )
        points = transforms.apply(torch.from_numpy(c2w), local).float()
        rgb = ((colours + 1) / 2 * 255).round().clamp(0, 255).byte()
    return QueriedView(points.numpy(), conf.float().numpy(), rgb.numpy(), local[..., 2].float().numpy())


def _check_camera(c2w: FloatArray, K: FloatArray, size: tuple[int, int], patch: int) -> None:
    """Raises `ThreerError` for what is no camera the network can be asked about."""
    if c2w.shape != (4, 4) or not np.isfinite(c2w).all():
        raise ThreerError(f"a pose must be a finite 4×4 camera-to-world matrix, got {_shown(c2w)}")
    if not transforms.is_pose(c2w):
        raise ThreerError(f"a pose must be a rotation and a translation over 0 0 0 1, got {_shown(c2w)}")
    if K.shape != (3, 3) or not np.isfinite(K).all() or K[0, 0] <= 0 or K[1, 1] <= 0:
        raise ThreerError(f"K must be a finite 3×3 matrix with positive focal lengths, got {_shown(K)}")
    if not np.allclose(K[[0, 1, 2, 2, 2], [1, 0, 0, 1, 2]], (0, 0, 0, 0, 1)):
        raise ThreerError(f"K must be fx 0 cx, 0 fy cy, 0 0 1, without skew, got {_shown(K)}")
    width, height = size
    if width < patch or height < patch or width % patch or height % patch:
        raise ThreerError(f"a view must be of sides that are multiples of {patch}, got {width}×{height}")
    if width * height > MOST_PIXELS:
        raise ThreerError(f"a view of {width}×{height} is too large: at most {MOST_PIXELS:,} pixels")


def _shown(matrix: FloatArray) -> str:
    """A small matrix, or the shape of what is none, in one line."""
    return str(matrix.tolist()) if matrix.size <= 16 else f"shape {list(matrix.shape)}"
