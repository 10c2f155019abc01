"""A first scene: pairs put together along the best spanning tree, or on cameras that are all known (DUSt3R 3.4)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree
from torch import Tensor

from threer.errors import ReconstructionError
from threer.geometry.focal import weiszfeld_focal
from threer.geometry.pnp_search import search_camera
from threer.geometry.procrustes import align_cameras, align_points
from threer.geometry.transforms import apply, invert
from threer.pipelines.alignment.predictions import Pairs
from threer.pipelines.alignment.scene import MEAN_SCALE, Aligned, Known
from threer.types import FloatArray, Pointmap, Sim3

MIN_CONF = 3.0
"""Points of a photo that no pair begins with find its camera only above this confidence."""


class NoCameraError(ReconstructionError):
    """Points of a photo that lead to no camera; ``photo`` is its number."""

    def __init__(self, photo: int, why: str) -> None:
        super().__init__(f"photo {photo}: {why}")
        self.photo, self.why = photo, why


def spanning_tree(pairs: Pairs, scores: FloatArray | None = None) -> list[int]:
    """The pairs of the best spanning tree, strongest first: of both orders the stronger one."""
    scores = pairs.scores() if scores is None else scores
    best: dict[tuple[int, int], int] = {}
    for e in np.argsort(scores, kind="stable"):
        i, j = pairs.edges[e].tolist()
        if i != j:
            best[min(i, j), max(i, j)] = int(e)
    rows = np.array(list(best), dtype=np.int64).reshape(-1, 2)
    costs = scores.max() + 1 - scores[list(best.values())]  # above 0: a zero would be no edge at all
    tree = minimum_spanning_tree(coo_array((costs, rows.T), shape=(pairs.count, pairs.count)))
    chosen = [best[min(i, j), max(i, j)] for i, j in zip(*(k.tolist() for k in tree.nonzero()), strict=True)]
    return sorted(chosen, key=lambda e: -scores[e])


def grow_scene(pairs: Pairs, known: Known, principal_points: Tensor, *, published: bool = False) -> Aligned:
    """Put photos together along the best spanning tree, then all pairs onto them.

    principal_points  [N, 2] of each photo
    published         estimate focal lengths from the pair that was placed before (quirk D2), take the identity for
                      a camera that was not found (D4), as the original does

    The photos must hang together. Raises `NoCameraError` for a photo whose points lead to no camera, and
    ReconstructionError for one whose points fix no place.
    """
    growth = _Growth(pairs, known, principal_points.numpy(), published)
    growth.along_tree()
    growth.find_cameras()
    if known.poses.any():
        growth.move_to_known()
    return growth.scene()


@dataclass
class _Growth:
    """A scene under construction. placed: world points [H·W, 3] of each photo that has a place."""

    pairs: Pairs
    known: Known
    centres: FloatArray
    published: bool
    placed: dict[int, FloatArray] = field(default_factory=dict)
    poses: dict[int, FloatArray] = field(default_factory=dict)
    focals: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.focals = {int(i): float(self.known.focals[i]) for i in np.flatnonzero(np.isfinite(self.known.focals))}
        self.scores = self.pairs.scores()

    def along_tree(self) -> None:
        waiting = spanning_tree(self.pairs, self.scores)
        last = start = waiting.pop(0)
        i, j = self.pairs.edges[start].tolist()
        self.placed = {i: _flat(self.pairs.own[start]), j: _flat(self.pairs.other[start])}
        self.poses[i] = np.eye(4)
        if self.published:
            self.focals.setdefault(i, self.focal_from(start))
        while waiting:
            pair = waiting.pop(0)
            i, j = self.pairs.edges[pair].tolist()
            if self.published:
                self.focals.setdefault(i, self.focal_from(last))
            if i not in self.placed and j not in self.placed:
                waiting.append(pair)
                continue
            self.attach(pair, i, j)
            last = pair

    def attach(self, pair: int, i: int, j: int) -> None:
        """Place a pair by the photo of it that has a place."""
        here = i if i in self.placed else j
        own, other = self.pairs.own[pair], self.pairs.other[pair]
        similarity = _onto(own if here == i else other, self.placed[here])
        if similarity is None:
            raise ReconstructionError(
                f"photos {i} and {j} cannot be put together: the points they share lie on a line or in one spot"
            )
        if here == i:
            self.placed[j] = similarity.apply(_flat(other))
        else:
            self.placed[i] = similarity.apply(_flat(own))
        if i not in self.poses:
            self.poses[i] = similarity.apply_to_cameras(np.eye(4)[None])[0]

    def focal_from(self, pair: int) -> float:
        """Focal length of a pair's first photo, from its own points."""
        own = self.pairs.own[pair]
        centre = torch.from_numpy(self.centres[self.pairs.edges[pair, 0]]).float()
        weights = None if self.published else own.conf.float().clamp(min=0)
        return float(weiszfeld_focal(own.xyz.float(), centre, weights))

    def find_cameras(self) -> None:
        """Focal lengths and poses that the walk did not give."""
        conf = self.pairs.confidence()
        for photo in range(self.pairs.count):
            first = np.flatnonzero(self.pairs.edges[:, 0] == photo)
            best = int(first[self.scores[first].argmax()]) if len(first) else None
            if photo not in self.focals and best is not None:
                focal = self.focal_from(best)
                if self.published or focal > 0:  # none follows from points behind their camera
                    self.focals[photo] = focal
            if photo not in self.poses and best is not None and not self.published:
                similarity = _onto(self.pairs.own[best], self.placed[photo])
                if similarity is not None:
                    self.poses[photo] = similarity.apply_to_cameras(np.eye(4)[None])[0]
            if photo not in self.poses or photo not in self.focals:
                self.by_reprojection(photo, conf[photo].flatten().numpy() > MIN_CONF)

    def by_reprojection(self, photo: int, sure: npt.NDArray[np.bool_]) -> None:
        """Camera of a photo from its placed points (PnP)."""
        height, width = self.pairs.sizes[photo]
        found = search_camera(
            self.placed[photo][sure],
            _pixels(height, width)[sure],
            self.centres[photo],
            (width, height),
            focal=self.focals.get(photo),
        )
        if found is not None:
            self.poses.setdefault(photo, found[0])
            self.focals.setdefault(photo, found[1])
        elif self.published:
            self.poses.setdefault(photo, np.eye(4))
            self.focals.setdefault(photo, float(max(height, width)))
        else:
            first = bool((self.pairs.edges[:, 0] == photo).any())
            hint = "" if first else ", and no pair begins with it: look at its pairs in both orders"
            raise NoCameraError(photo, f"its points agree with no camera{hint}")

    def move_to_known(self) -> None:
        """Move everything onto the cameras that are known."""
        rows = np.flatnonzero(self.known.poses)
        found, wanted = np.stack([self.poses[int(i)] for i in rows]), self.known.c2w[rows]
        if len(rows) == 1:
            move: Sim3 | None = _rigid(wanted[0] @ np.linalg.inv(found[0]))
        else:
            move = align_cameras(found, wanted)
        if move is None:
            raise ReconstructionError(
                "the known cameras all stand in one place: they do not fix where the scene is"
            )
        self.placed = {i: move.apply(points) for i, points in self.placed.items()}
        self.poses = {i: move.apply_to_cameras(pose[None])[0] for i, pose in self.poses.items()}
        self.poses |= {int(i): self.known.c2w[i] for i in rows}

    def scene(self) -> Aligned:
        """Every pair moved onto the placed points; the whole in the usual size, unless it is known."""
        pairs = self.pairs
        moves = []
        for e, (i, _) in enumerate(pairs.edges.tolist()):
            move = _onto(pairs.own[e], self.placed[i])
            moves.append(move or Sim3(1.0, self.poses[i][:3, :3], self.poses[i][:3, 3]))
        scales = np.array([move.scale for move in moves])
        c2w = torch.from_numpy(np.stack([self.poses[i] for i in range(pairs.count)]))
        depth = []
        for i, size in enumerate(pairs.sizes):
            points = torch.from_numpy(self.placed[i]).reshape(*size, 3)
            depth.append(positive(apply(invert(c2w[i]), points)[..., 2]).float())
        scene = Aligned(
            c2w,
            torch.tensor([self.focals[i] for i in range(pairs.count)], dtype=torch.float64),
            torch.from_numpy(self.centres),
            torch.from_numpy(self.known.aspects),
            depth,
            torch.from_numpy(np.stack([move.R for move in moves])),
            torch.from_numpy(scales),
            torch.from_numpy(np.stack([move.t for move in moves])),
        )
        if self.known.fixes_scale:
            return scene
        return scene.resized(float(MEAN_SCALE / np.exp(np.log(scales).mean())), torch.from_numpy(self.known.hub))


def scene_on_known_cameras(pairs: Pairs, known: Known, principal_points: Tensor) -> Aligned:
    """A first scene where every pose and every focal length is known: each pair moved onto its two cameras.

    Raises ReconstructionError when a camera is missing.
    """
    if not (known.poses.all() and np.isfinite(known.focals).all()):
        raise ReconstructionError("beginning with known cameras needs the pose and the focal length of every photo")
    centres = principal_points.numpy()
    moves: list[Sim3] = []
    for e, (i, j) in enumerate(pairs.edges.tolist()):
        height, width = pairs.sizes[j]
        found = search_camera(
            _flat(pairs.other[e]), _pixels(height, width), centres[j], (width, height), focal=float(known.focals[j])
        )
        second = np.full((4, 4), np.nan) if found is None else found[0]
        move = align_cameras(np.stack([np.eye(4), second]), known.c2w[[i, j]])
        moves.append(move or Sim3(1.0, known.c2w[i, :3, :3], known.c2w[i, :3, 3]))
    depth: list[Tensor] = []
    for photo in range(pairs.count):
        first = np.flatnonzero(pairs.edges[:, 0] == photo)
        if len(first):
            best = int(first[np.argmax([float(pairs.own[e].conf.float().mean()) for e in first.tolist()])])
            depth.append(positive(moves[best].scale * pairs.own[best].depth.float()))
            continue
        best = int(np.flatnonzero(pairs.edges[:, 1] == photo)[0])
        points = torch.from_numpy(moves[best].apply(_flat(pairs.other[best]))).reshape(*pairs.sizes[photo], 3)
        depth.append(positive(apply(invert(torch.from_numpy(known.c2w[photo])), points)[..., 2]).float())
    return Aligned(
        torch.from_numpy(known.c2w),
        torch.from_numpy(known.focals),
        principal_points,
        torch.from_numpy(known.aspects),
        depth,
        torch.from_numpy(np.stack([move.R for move in moves])),
        torch.tensor([move.scale for move in moves], dtype=torch.float64),
        torch.from_numpy(np.stack([move.t for move in moves])),
    )


def positive(depth: Tensor) -> Tensor:
    """Depth with what is not in front of the camera put at a thousandth of the median."""
    ahead = depth[depth > 0]
    least = float(ahead.median()) * 1e-3 if len(ahead) else 1.0
    return torch.where(depth > least, depth, least)


def _onto(points: Pointmap, placed: FloatArray) -> Sim3 | None:
    return align_points(_flat(points), placed, points.conf.flatten().double().numpy())


def _rigid(matrix: FloatArray) -> Sim3:
    return Sim3(1.0, matrix[:3, :3], matrix[:3, 3])


def _flat(points: Pointmap) -> FloatArray:
    return np.asarray(points.xyz.reshape(-1, 3).double().numpy())


def _pixels(height: int, width: int) -> FloatArray:
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).reshape(-1, 2).astype(np.float64)
