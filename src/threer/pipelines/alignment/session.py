"""DUSt3R on any number of photos: pairs, then global alignment; one photo or two in closed form."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from threer.config import AlignmentConfig
from threer.errors import ReconstructionError
from threer.geometry.projection import invert_affine, transform_intrinsics, unproject
from threer.geometry.transforms import apply
from threer.pipelines.alignment import pairs as graphs
from threer.pipelines.alignment.align import Alignment, align
from threer.pipelines.alignment.predictions import Pairs, pooled_likeness, predict
from threer.pipelines.alignment.scene import Known
from threer.pipelines.pairwise import MOST_PHOTOS, PairModel, PairSession
from threer.pipelines.sessions import Progress, as_view
from threer.types import FloatArray, Frame, Pointmap, Update, View

FEW_ENOUGH = 16
"""Up to so many photos the graph `auto` is complete; of more, each goes with those it resembles."""
NAMED = 5


class AlignmentSession:
    """Reconstructs a set of photos from its pairs, in the camera frame of the first one that has a place.

    Nothing comes out before `finish`. Photos may differ in size and in focal length.

    intrinsics  [3, 3] known K in original pixels of every photo, or None to estimate each photo's focal length
    poses       known camera-to-world [4, 4] by the number of a photo, never changed; two of them fix the unit
    progress    is told what goes on, how many steps are done, and of how many
    """

    def __init__(
        self,
        model: PairModel,
        config: AlignmentConfig | None = None,
        *,
        intrinsics: FloatArray | None = None,
        poses: Mapping[int, FloatArray] | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.config = config or AlignmentConfig()
        self._model = model
        self._intrinsics = intrinsics
        self._poses = poses or {}
        self._progress = progress
        self._frames: list[Frame] = []
        self._ended = False
        self._report: dict[str, Any] = {}

    @property
    def report(self) -> dict[str, Any]:
        """The pair graph, the loss, photos without a place or a camera and why, and what could not be checked."""
        return self._report

    def push(self, frame: Frame) -> list[Update]:
        """Take the next photo."""
        if self._ended:
            raise ReconstructionError("this session has ended; start a new one for more frames")
        self._frames.append(frame)
        return []

    def finish(self) -> list[Update]:
        """Reconstruct the photos.

        Raises ReconstructionError when there is none, when the pair graph leaves photos apart, or when no two of
        them fit together.
        """
        if self._ended:
            return []
        self._ended = True
        if len(self._frames) <= MOST_PHOTOS and not self._poses:
            return self._in_closed_form()
        return self._aligned()

    def _in_closed_form(self) -> list[Update]:
        session = PairSession(
            self._model,
            intrinsics=self._intrinsics,
            shared_focal=self.config.shared_focal,
            seed=self.config.alignment_seed,
        )
        for frame in self._frames:
            session.push(frame)
        updates = session.finish()
        self._report = session.report
        return updates

    def _aligned(self) -> list[Update]:
        with torch.inference_mode():  # not around the alignment: the published one takes gradients
            pairs = self._predicted()
        names = [frame.name for frame in self._frames]
        found = align(pairs, self.config, known=self._known(), names=names, progress=self._progress)
        self._report = {
            **found.report,
            "unplaced": {names[i]: why for i, why in found.problems.items()},
            "ambiguous": list(found.doubts),
        }
        return self._updates(found)

    def _predicted(self) -> Pairs:
        frames = self._frames
        views = [self._encoded(frame, done + 1) for done, frame in enumerate(frames)]
        chosen = choose_pairs(views, self.config)
        _check_connected(frames, chosen)
        if self.config.both_orders:
            chosen = graphs.symmetrized(chosen)
        return predict(
            self._model,
            frames,
            views,
            chosen,
            batch=self.config.pairs_at_once,
            storage=self.config.pair_storage,
            progress=self._progress,
        )

    def _encoded(self, frame: Frame, done: int) -> View:
        """A view with its tokens and without its image: each photo is encoded once (quirk D5)."""
        view = as_view(frame, next(iter(self._model.parameters())).device)
        assert view.image is not None
        tokens = self._model.encode(view.image)
        if self._progress:
            self._progress("photos", done, len(self._frames))
        return dataclasses.replace(view, tokens=tokens, image=None)

    def _known(self) -> Known:
        known = Known.nothing(len(self._frames))
        for i, pose in self._poses.items():
            known.c2w[i] = pose
        if self._intrinsics is not None:
            for i, frame in enumerate(self._frames):
                K = transform_intrinsics(self._intrinsics, invert_affine(frame.to_original))
                known.focals[i] = K[0, 0]
                known.aspects[i] = K[1, 1] / K[0, 0]
                known.principal_points[i] = K[:2, 2]
        return known

    def _updates(self, found: Alignment) -> list[Update]:
        place = {photo: k for k, photo in enumerate(found.photos)}
        nowhere = np.full((4, 4), np.nan)
        updates = []
        for i, frame in enumerate(self._frames):
            why = found.problems.get(i, "")
            if i not in place:
                updates.append(Update("failed", frame, c2w=nowhere, K=np.full((3, 3), np.nan), message=why))
                continue
            k = place[i]
            network_K = found.scene.K(k)
            K = self._intrinsics
            if K is None:
                K = transform_intrinsics(network_K.numpy(), frame.to_original)
            local = unproject(found.scene.depth[k].double(), network_K)
            world = apply(found.scene.c2w[k], local)
            updates.append(
                Update(
                    "final",
                    frame,
                    points=Pointmap(world.float(), found.conf[k]),
                    local=Pointmap(local.float(), found.conf[k]),
                    c2w=nowhere if why else found.scene.c2w[k].numpy(),
                    K=K,
                    message=why,
                )
            )
        return updates


def choose_pairs(views: Sequence[View], config: AlignmentConfig) -> list[graphs.Pair]:
    """The pairs of photos (each once, one order) that the settings ask for."""
    count, graph = len(views), config.pair_graph
    if graph == "auto":
        graph = "complete" if count <= FEW_ENOUGH else "retrieval"
    if graph == "complete":
        pairs = graphs.complete(count)
    elif graph == "sliding":
        pairs = graphs.sliding_window(count, config.pair_window, cyclic=config.pair_cycle)
    elif graph == "log":
        pairs = graphs.log_window(count, config.pair_window, cyclic=config.pair_cycle)
    elif graph == "one-reference":
        pairs = graphs.one_reference(count, config.pair_reference)
    else:
        pairs = graphs.most_alike(pooled_likeness(views), config.pair_neighbours)
    if config.pair_distance is not None:
        pairs = graphs.within(pairs, config.pair_distance, cyclic_of=count if config.pair_cycle else None)
    return pairs


def _check_connected(frames: Sequence[Frame], pairs: Sequence[graphs.Pair]) -> None:
    sets = graphs.components(len(frames), pairs)
    if len(sets) > 1:
        parts = "; ".join(_listed([frames[i].name for i in members]) for members in sets)
        raise ReconstructionError(
            f"the pair graph falls into {len(sets)} parts that never meet: {parts}. "
            "Choose a wider window or another graph"
        )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
