"""Pictures to cameras and depth without any network, through the same session as every other method."""

from __future__ import annotations

import dataclasses
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from threer.config import ClassicalConfig, InputSpec
from threer.errors import ReconstructionError
from threer.io.atomic import write_json
from threer.io.exif import PhotoFocal
from threer.io.images import RGBImage
from threer.pipelines.classical.depth import DenseDepth
from threer.pipelines.classical.features import FeatureStore
from threer.pipelines.classical.given import doubt_given_focal
from threer.pipelines.classical.mapping import Mapped
from threer.pipelines.classical.matching import choose_pairs, match
from threer.pipelines.classical.model import SparseModel, as_sparse_model, normalise
from threer.pipelines.classical.photos import by_picture, left_aside, map_photos
from threer.pipelines.sessions import Progress
from threer.types import Checkpoint, FloatArray, Frame, Pointmap, Update

FOLDER = "features"
"""Of a run: features, matches and the sparse model, for whoever refines or localises later."""
SPARSE = "sparse"
FRAMES = "frames.json"
FEWEST = 3
NAME = "classical (structure from motion and plane sweep)"


class NoNetwork(nn.Module):
    """Stands where other methods have their network: what pictures are prepared for, and where to compute."""

    def __init__(self, config: ClassicalConfig, device: str = "cpu") -> None:
        super().__init__()
        self.input = InputSpec(config.depth_size, square=False, patch=2, allow_square=True)
        self.checkpoint = Checkpoint("none", "classical", (), "nothing learned", description=NAME)
        self.device = device


class ClassicalSession:
    """The classical baseline: SIFT, matches, COLMAP's mappers under the checks of `checks`, plane-sweep depth.

    Features are found while frames come; everything else happens in `finish`. The world is the camera of the first
    frame that was placed, its unit the median depth of the sparse points: nothing says how large it is. Frames
    outside the largest model fail. Of each frame a small picture is kept, so memory grows slowly with them.

    intrinsics  [3, 3] known K in original pixels, or None: then pictures of one size share a focal length
    in_order    whether frames follow each other in time
    folder      where features are kept; None: only while the session lasts
    progress    is told what goes on, how many steps are done, and of how many
    """

    def __init__(
        self,
        config: ClassicalConfig | None = None,
        *,
        intrinsics: FloatArray | None = None,
        in_order: bool = True,
        folder: Path | None = None,
        device: str = "cpu",
        progress: Progress | None = None,
    ) -> None:
        self.config = config or ClassicalConfig()
        self.folder = folder
        self._intrinsics, self._in_order, self._device = intrinsics, in_order, device
        self._progress: Progress = progress or (lambda *_: None)
        self._store: FeatureStore | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._frames: list[Frame] = []
        self._pictures: list[Tensor] = []  # [3, H, W] uint8
        self._ids: list[int] = []
        self._focals: list[PhotoFocal] = []
        self._seen: RGBImage | None = None
        self._ended = False
        self._report: dict[str, Any] = {}

    @property
    def report(self) -> dict[str, Any]:
        """How the mapping went: every attempt, what its models were worth, and what is left out."""
        return {"method_name": NAME, **self._report}

    def look(self, picture: RGBImage, focal: PhotoFocal | None = None) -> None:
        """Show the original [H, W, 3] of the frame that is pushed next: features want its full resolution.

        focal  where the search for its focal length begins, unless intrinsics are known
        """
        self._seen = picture
        self._focals = [*self._focals[: len(self._frames)], focal or PhotoFocal()]

    def push(self, frame: Frame) -> list[Update]:
        """Take the next frame, whose original was shown to `look`. Raises RunError where the disk refuses."""
        if self._ended:
            raise ReconstructionError("this session has ended; start a new one for more frames")
        if self._seen is None:
            raise ValueError(f"the original of frame {frame.index} was not shown")
        picture, self._seen = self._seen, None
        self._ids.append(self._features().add(picture))
        self._pictures.append((frame.image * 255).round().byte().cpu())
        self._frames.append(dataclasses.replace(frame, image=torch.empty(3, 0, 0)))
        self._progress("features", len(self._frames), 0)
        return []

    def finish(self) -> Iterator[Update]:
        """Updates of all frames, one by one as their depth is found. Raises ReconstructionError if nothing fits."""
        if self._ended:
            return
        self._ended = True
        try:
            yield from self._reconstruct()
        finally:
            if self._store is not None:
                self._store.close()
            if self._temporary is not None:
                self._temporary.cleanup()

    def _features(self) -> FeatureStore:
        if self._store is None:
            if self.folder is None:
                self._temporary = tempfile.TemporaryDirectory()
            self._store = FeatureStore(
                self.folder or Path(self._temporary.name if self._temporary else ""),
                intrinsics=self._intrinsics,
                longest_side=self.config.feature_size,
                most=self.config.most_features,
                threads=torch.get_num_threads(),
            )
        return self._store

    def _reconstruct(self) -> Iterator[Update]:
        distinct = list(dict.fromkeys(self._ids))
        if len(distinct) < FEWEST:
            raise ReconstructionError(
                f"the classical baseline needs {FEWEST} different pictures, got {len(distinct)} in "
                f"{len(self._frames)} frames"
            )
        store, config = self._features(), self.config
        pairs = choose_pairs(
            store, distinct, in_order=self._in_order, all_up_to=config.all_pairs_up_to, similar=config.similar
        )
        match(store, pairs, seed=config.mapping_seed, progress=self._progress)
        focals = by_picture(self._ids, self._focals)
        mapped, notes = map_photos(store, focals, seed=config.mapping_seed, progress=self._progress)
        placed = set(mapped.model.reg_image_ids())
        normalise(mapped.model, next(image for image in self._ids if image in placed))
        model = as_sparse_model(mapped.model)
        if self._intrinsics is None:
            notes += left_aside([frame.name for frame in self._frames], self._focals)
        elif doubt := doubt_given_focal(mapped.model, threads=store.threads):
            notes.append(doubt)
        self._describe(mapped, model, notes)
        if self.folder is not None:
            self._keep(store, mapped.model)
        yield from self._placed(model)

    def _placed(self, model: SparseModel) -> Iterator[Update]:
        first = {image: position for position, image in reversed(list(enumerate(self._ids)))}
        chosen = [first[image] for image in model.images]
        dense = DenseDepth(
            model,
            [self._pictures[i] for i in chosen],
            [self._frames[i].to_original for i in chosen],
            partners=self.config.depth_partners,
            planes=self.config.depth_planes,
            device=self._device,
        )
        rows = {image: row for row, image in enumerate(model.images)}
        for frame, picture, image in zip(self._frames, self._pictures, self._ids, strict=True):
            shown = dataclasses.replace(frame, image=picture.float() / 255)
            row = rows.get(image)
            if row is None:
                missing = np.full((4, 4), np.nan), np.full((3, 3), np.nan)
                yield Update("failed", shown, c2w=missing[0], K=missing[1], message="outside the largest model")
                continue
            with torch.inference_mode():
                local = dense.pointmap(row)
                world: Pointmap | None = None if local is None else dense.world(row, local)
            yield Update("final", shown, points=world, local=local, c2w=model.c2w[row], K=model.K[row])

    def _describe(self, mapped: Mapped, model: SparseModel, more: list[str]) -> None:
        placed = sum(image in set(model.images) for image in self._ids)
        outcome = mapped.chosen
        notes = []
        if placed < len(self._frames):
            others = f", beside others of {', '.join(map(str, outcome.models[1:]))}" if outcome.models[1:] else ""
            notes.append(
                f"classical: {len(self._frames) - placed} of {len(self._frames)} frames are outside the largest "
                f"model ({len(model.images)} pictures{others})"
            )
        if len(mapped.outcomes) > 1:
            notes.append(f"classical: {len(mapped.outcomes)} attempts at a model, {outcome.attempt} was taken")
        focals = Counter(round(float(K[0, 0]), 2) for K in model.K)
        self._report = {
            "attempts": [dataclasses.asdict(o) for o in mapped.outcomes],
            "attempt": outcome.attempt,
            "reprojection_error_px": outcome.error_px,
            "models": list(outcome.models),
            "placed": placed,
            "repeated_pictures": len(self._ids) - len(set(self._ids)),
            "sparse_points": len(model.points),
            "focal_px": sorted(focals),
            "notes": [*notes, *more],
        }

    def _keep(self, store: FeatureStore, model: Any) -> None:
        assert self.folder is not None
        (self.folder / SPARSE).mkdir(exist_ok=True)
        model.write(self.folder / SPARSE)
        names = {str(frame.index): store.name(image) for frame, image in zip(self._frames, self._ids, strict=True)}
        write_json(self.folder / FRAMES, names)
