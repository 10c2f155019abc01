"""A walk that comes back to its start, reconstructed by something that drifts; then its loop is closed.

The room is rendered, so the truth is known. The run is made from it as a network would: every step of the camera is
off by a bias and some noise, the map grows as it goes, and each depth map is bent on its own.

    python benchmarks/loop_closure.py --out loops --figure docs/figures/loop-closure.png
    python benchmarks/loop_closure.py --out loops --streaming     # closed while the walk is still being streamed
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from drifting_model import DriftingModel
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import zoom
from scipy.spatial.transform import Rotation

from threer.config import LoopConfig, StreamingConfig
from threer.data.synthetic.clips import WALK, Clip, ClipStyle, render_path
from threer.data.synthetic.rooms import sample_room
from threer.evaluation.trajectory import ate
from threer.geometry.projection import unproject
from threer.io.runs import RunWriter, Scene
from threer.pipelines.cameras import CameraTracker
from threer.pipelines.refine.closing import Closing, close_loops
from threer.pipelines.streaming import StreamingSession
from threer.pipelines.streaming.closing import LoopCloser
from threer.types import FloatArray, Frame, Pointmap, Sim3, Trajectory, Update

FOV = 70.0
FPS = 5.0


@dataclass(frozen=True)
class Drift:
    """Of each step: turn in degrees (bias and noise), noise of the place in metres, growth of the map; and the
    standard deviation of the smooth error of depth maps, as a share."""

    turn: float = 0.2
    turn_noise: float = 0.05
    place: float = 0.003
    growth: float = 0.004
    depth: float = 0.02


def round_trip(
    seed: int, frames: int, size: tuple[int, int], style: ClipStyle = WALK, radius: float = 1.0, turns: float = 1.2
) -> Clip:
    """A walk on a circle, looking outwards, that goes on over its own beginning."""
    room = sample_room(seed)
    eye = float(room.size.reshape(3)[1]) - 1.4  # y is down
    angle = torch.linspace(0, 2 * math.pi * turns, frames)
    c2w = torch.eye(4).repeat(frames, 1, 1)
    c2w[:, 0, 0], c2w[:, 0, 2], c2w[:, 2, 0], c2w[:, 2, 2] = angle.cos(), angle.sin(), -angle.sin(), angle.cos()
    c2w[:, :3, 3] = torch.stack([radius * angle.sin(), eye + 0.05 * (5 * angle).sin(), radius * angle.cos()], -1)
    return render_path(seed, c2w, FOV, size, style)


def drifted(clip: Clip, drift: Drift, seed: int = 0) -> Iterator[Update]:
    """The clip as something that drifts would reconstruct it, frame by frame."""
    generator = np.random.default_rng(seed)
    height, width = clip.depth.shape[1:]
    for k, placed in enumerate(drifting_way(clip, drift, generator)):
        bend = zoom(generator.normal(0, drift.depth, (4, 5)), (height / 4, width / 5), order=3)[:height, :width]
        depth = clip.depth[k].double() * torch.from_numpy(np.exp(bend))
        xyz = placed.apply(unproject(depth, clip.K[k].double()).numpy())
        conf = torch.full((height, width), 2.0)
        points = Pointmap(torch.from_numpy(xyz).float(), conf)
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = placed.R, placed.t
        yield Update("final", as_frame(clip, k), points=points, c2w=pose, K=clip.K[k].double().numpy())


def drifting_way(clip: Clip, drift: Drift, generator: np.random.Generator) -> Iterator[Sim3]:
    """Where something that drifts puts each camera, and how large it takes the world to be there."""
    true = clip.c2w.double().numpy()
    pose, scale = true[0].copy(), 1.0
    for k in range(len(clip)):
        if k:
            step = np.linalg.inv(true[k - 1]) @ true[k]
            turn = generator.normal([0.3 * drift.turn, drift.turn, 0], drift.turn_noise)
            wrong = np.eye(4)
            wrong[:3, :3] = Rotation.from_rotvec(np.radians(turn)).as_matrix()
            wrong[:3, 3] = scale * generator.normal(0, drift.place, 3)
            step[:3, 3] *= scale
            pose = pose @ step @ wrong
            scale *= 1 + drift.growth
        yield Sim3(scale, pose[:3, :3].copy(), pose[:3, 3].copy())


def as_frame(clip: Clip, k: int) -> Frame:
    height, width = clip.depth.shape[1:]
    return Frame(clip.images[k], k, k / FPS, f"{k:04d}.png", (width, height), np.eye(2, 3))


def write_run(out: Path, updates: Iterator[Update]) -> Scene:
    """A complete run of them."""
    writer = RunWriter(out, {"method": "drifting"}, overwrite=True)
    for update in updates:
        writer.on(update)
    return writer.finish("complete", {"seconds": {}, "skipped": [], "notes": []})


def truth(clip: Clip) -> Trajectory:
    return Trajectory(np.arange(len(clip)) / FPS, clip.c2w.double().numpy())


def figure(before: Scene, after: Scene, clip: Clip, errors: tuple[float, float]) -> Image.Image:
    """Ground plans side by side: cloud, way of the camera (red), true way (blue)."""
    panels = []
    for scene, name, error in ((before, "before", errors[0]), (after, "after", errors[1])):
        found = ate(scene.trajectory, truth(clip))
        panels.append(_plan(scene, found.sim3.apply(scene.trajectory.positions), clip, f"{name}: ATE {error:.1%}"))
    image = Image.new("RGB", (sum(p.width for p in panels) + 8, panels[0].height), "white")
    left = 0
    for panel in panels:
        image.paste(panel, (left, 0))
        left += panel.width + 8
    return image


def _plan(scene: Scene, path: FloatArray, clip: Clip, title: str, side: int = 560) -> Image.Image:
    """Seen from above, in the true coordinates. Floor and ceiling are left out, so that walls are lines."""
    sim3 = ate(scene.trajectory, truth(clip)).sim3
    cloud = scene.cloud(0.7, 400_000)
    xyz = sim3.apply(cloud.xyz.astype(np.float64))
    eye = float(clip.c2w[:, 1, 3].mean())
    level = np.abs(xyz[:, 1] - eye) < 0.6
    xyz, rgb = xyz[level], cloud.rgb[level]
    reach = 1.15 * float(np.abs(_extent(clip)).max())

    def pixels(points: FloatArray) -> FloatArray:
        return (np.stack([points[:, 0], -points[:, 2]], axis=1) / reach + 1) * side / 2

    canvas = np.full((side, side, 3), 250, np.uint8)
    column, row = np.round(pixels(xyz)).astype(np.int64).T
    inside = (column >= 0) & (row >= 0) & (column < side) & (row < side)
    canvas[row[inside], column[inside]] = rgb[inside]
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    for way, color in ((clip.c2w[:, :3, 3].double().numpy(), (33, 102, 172)), (path, (200, 40, 40))):
        draw.line([tuple(p) for p in pixels(way)], fill=color, width=3)
    draw.rectangle([(0, 0), (side, 26)], fill="white")
    draw.text((8, 5), f"{title} of the path", fill=(50, 50, 50), font=ImageFont.load_default(15))
    return image


def _extent(clip: Clip) -> FloatArray:
    """[M, 2] where some true surface points are on the ground plan."""
    xyz = unproject(clip.depth[::8].double(), clip.K[::8].double())
    placed = clip.c2w[::8].double()
    moved = torch.einsum("nij,nhwj->nhwi", placed[:, :3, :3], xyz) + placed[:, None, None, :3, 3]
    flat: FloatArray = moved[..., [0, 2]].reshape(-1, 2).numpy()
    return flat


def measure(clip: Clip, out: Path, drift: Drift, config: LoopConfig) -> tuple[Scene, Closing, dict[str, object]]:
    """Make the run in ``out``, close its loops, and hold both against the truth."""
    scene = write_run(out, drifted(clip, drift))
    begin = time.process_time()
    closing = close_loops(scene, config=config)
    before, after = ate(scene.trajectory, truth(clip)), ate(closing.scene.trajectory, truth(clip))
    figures = {
        "frames": len(clip),
        "drift": asdict(drift),
        "why_not": closing.why,
        "pairs_compared": closing.compared,
        "loops": len(closing.loops),
        "ate_m": (before.rmse_m, after.rmse_m),
        "ate_share_of_path": (before.share_of_path, after.share_of_path),
        "misfit": closing.misfit,
        "cpu_s": time.process_time() - begin,
    }
    return scene, closing, figures


def network(clip: Clip, drift: Drift) -> DriftingModel:
    """One that knows the clip, and drifts."""
    return DriftingModel(clip, list(drifting_way(clip, drift, np.random.default_rng(0))), drift.depth)


def new_session(clip: Clip, model: DriftingModel, loops: LoopCloser | None, radius: int = 5) -> StreamingSession:
    """A stream of the clip through its `network`."""
    config = StreamingConfig(stride=2, radius=radius, init_min_conf=0)
    return StreamingSession(model, config, tracker=CameraTracker(clip.K[0].double().numpy()), loops=loops)


def stream(clip: Clip, out: Path, drift: Drift, loops: LoopCloser | None) -> tuple[Scene, dict[str, object]]:
    """Stream the clip into a run; what it cost, and when corrections came."""
    session = new_session(clip, network(clip, drift), loops)
    writer = RunWriter(out, {"method": "drifting"}, overwrite=True, precision="float32")
    spent, longest, corrections = 0.0, 0.0, []
    for k in range(len(clip) + 1):
        begin = time.process_time()
        updates = session.push(as_frame(clip, k)) if k < len(clip) else session.finish()
        took = time.process_time() - begin
        spent, longest = spent + took, max(longest, took)
        for update in updates:
            writer.on(update)
            if update.kind == "correction":
                corrections.append({"last_frame_moved": update.frame.index, "frames_taken": min(k + 1, len(clip))})
    scene = writer.finish("complete", {**session.report, "seconds": {}, "skipped": [], "notes": []})
    error = ate(scene.trajectory, truth(clip))
    return scene, {
        "ate_m": error.rmse_m,
        "ate_share_of_path": error.share_of_path,
        "cpu_s": spent,
        "longest_push_cpu_s": longest,
        "corrections": corrections,
        "loops": None if loops is None else loops.report,
        "kept_mib": None if loops is None else loops.nbytes / 2**20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("loops"))
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--frames", type=int, default=96)
    parser.add_argument("--size", type=int, nargs=2, default=(240, 176))
    parser.add_argument("--turns", type=float, default=1.2)
    parser.add_argument("--streaming", action="store_true")
    asked = parser.parse_args()
    clip = round_trip(asked.seed, asked.frames, tuple(asked.size), turns=asked.turns)
    if asked.streaming:
        _, open_way = stream(clip, asked.out / "open", Drift(), None)
        _, closed_way = stream(clip, asked.out / "closed", Drift(), LoopCloser())
        print(json.dumps({"frames": len(clip), "without": open_way, "with": closed_way}, indent=1))
        return
    scene, closing, figures = measure(clip, asked.out, Drift(), LoopConfig(pictures="run", overwrite=True))
    print(json.dumps(figures, indent=1))
    if asked.figure:
        shares = figures["ate_share_of_path"]
        assert isinstance(shares, tuple)
        figure(scene, closing.scene, clip, shares).save(asked.figure)


if __name__ == "__main__":
    main()
