"""Pixels of a picture and points of a run that are the same, by features or by a network."""

from __future__ import annotations

import dataclasses
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from threer.config import LocalizeConfig
from threer.errors import RunError, ThreerError
from threer.geometry.matching import match_pointmaps
from threer.io.atomic import replacing
from threer.io.frames import RawFrame, to_frame
from threer.io.images import RGBImage
from threer.io.runs import Scene
from threer.models.checkpoints import family_of
from threer.models.device import find_device
from threer.models.registry import load_model
from threer.pipelines.classical.features import FeatureStore
from threer.pipelines.classical.matching import describe, find_words, mutual_matches
from threer.pipelines.localization.landmarks import Watch, open_landmarks
from threer.pipelines.localization.pictures import run_pictures, small_pictures
from threer.pipelines.localization.pose import Correspondences
from threer.pipelines.lookup import points_at
from threer.pipelines.saving import weights_fingerprint
from threer.pipelines.sessions import as_view, check_finite, first_sample
from threer.types import FloatArray, Frame, View

LEAST_CONF = 3.0
MOST_MATCHES = 20_000
TOKENS = "tokens"
VIEWS_KEPT = 64


class Matcher(Protocol):
    """Finds what a picture has in common with a run.

    least, least_share  inliers, and share of the matches with one frame, below which a camera is chance
    """

    least: int
    least_share: float

    def match(self, picture: RGBImage, name: str) -> Correspondences | str:
        """Matches of a picture [H, W, 3], or why there are none."""
        ...

    def close(self) -> None: ...


def make_matcher(scene: Scene, config: LocalizeConfig, watch: Watch) -> Matcher:
    """The matcher that ``config`` asks for. Raises ThreerError where something that it needs is missing."""
    return SiftMatcher(scene, config, watch) if config.matcher == "sift" else PairMatcher(scene, config, watch)


class SiftMatcher:
    """Root-SIFT, mutual nearest neighbours under the ratio test, against the frames that VLAD finds most alike."""

    least, least_share = 12, 0.0

    def __init__(self, scene: Scene, config: LocalizeConfig, watch: Watch) -> None:
        self._landmarks = open_landmarks(scene, config, watch)
        self._scene = scene
        self._retrieved = config.retrieved
        positions = self._landmarks.positions
        features = {k: self._landmarks.descriptors(k) for k in positions}
        self._words = find_words(list(features.values()), seed=config.seed)
        self._pooled = np.stack(
            [describe(features[k], self._words) for k in watch(positions, "index", len(positions))]
        )
        self._folder = tempfile.TemporaryDirectory()
        self._queries = FeatureStore(Path(self._folder.name), threads=torch.get_num_threads())

    def close(self) -> None:
        self._landmarks.close()
        self._queries.close()
        self._folder.cleanup()

    def match(self, picture: RGBImage, name: str) -> Correspondences | str:
        image = self._queries.add(picture)
        pixels, descriptors = self._queries.keypoints(image).astype(np.float64), self._queries.descriptors(image)
        if len(descriptors) < self.least:
            return f"it has {len(descriptors)} features, {self.least} are needed: it lacks texture or is blurred"
        likeness = self._pooled @ describe(descriptors, self._words)
        parts = []
        for row in np.argsort(-likeness, kind="stable")[: self._retrieved]:
            position = self._landmarks.positions[row]
            points = self._landmarks.points(position)
            mine, theirs = mutual_matches(descriptors, self._landmarks.descriptors(position))
            known = np.isfinite(points[theirs]).all(axis=1)
            mine, theirs = mine[known], theirs[known]
            parts.append((pixels[mine], points[theirs], np.full(len(mine), position)))
        return _pooled_matches(self._scene, parts)


class PairMatcher:
    """Reciprocal nearest neighbours in the pointmaps of a network of DUSt3R's kind (pipelines.md 2.4).

    Frames are retrieved by their pooled encoder tokens, which are kept in the run's folder.
    """

    least, least_share = 100, 0.25

    def __init__(self, scene: Scene, config: LocalizeConfig, watch: Watch) -> None:
        self._model: Any = load_model(config.weights or "dust3r", device=find_device(config.device))
        if family_of(self._model) != "dust3r":
            raise ThreerError(
                f"the weights {config.weights!r} are not of DUSt3R's kind, which alone can match here"
            )
        self._scene, self._retrieved, self._seed = scene, config.retrieved, config.seed
        self._small = config.pictures == "run"
        self._positions = np.flatnonzero(scene.cameras.found).tolist()
        if not self._positions:
            raise RunError(f"no camera of {scene.path} was found, so nothing can be found in it; see its report")
        wanted = set(self._positions)
        pictures = small_pictures(scene) if self._small else run_pictures(scene, config.source)
        self._frames: dict[int, Frame] = {}
        for position, picture in pictures:
            if position in wanted:
                self._frames[position] = _small_frame(self._prepare(picture, str(position)))
        self._views: OrderedDict[int, View] = OrderedDict()
        self._pooled = self._index(watch)

    def close(self) -> None:
        """Nothing is open."""

    def match(self, picture: RGBImage, name: str) -> Correspondences | str:
        frame = self._prepare(picture, name)
        with torch.inference_mode():
            view = self._encoded(frame)
            query = _unit(_pool(view) - self._pooled.mean(axis=0))
            likeness = _unit(self._pooled - self._pooled.mean(axis=0)) @ query
            parts = [
                self._match_with(frame, view, self._positions[row])
                for row in np.argsort(-likeness, kind="stable")[: self._retrieved]
            ]
        return _pooled_matches(self._scene, parts, MOST_MATCHES, self._seed)

    def _match_with(self, frame: Frame, view: View, position: int) -> tuple[FloatArray, FloatArray, FloatArray]:
        other = self._frames[position]
        own, seen = (first_sample(p.points) for p in self._model([view, self._view(position)]))
        check_finite(frame, own)
        check_finite(other, seen)
        found = match_pointmaps(own, seen, keep=1.0, min_conf=LEAST_CONF)
        pixels = found.pixels_a @ frame.to_original[:, :2].T + frame.to_original[:, 2]
        theirs = found.pixels_b @ other.to_original[:, :2].T + other.to_original[:, 2]
        points = points_at(self._scene.frame(position), theirs, small=self._small)
        known = np.isfinite(points).all(axis=1)
        return pixels[known], points[known], np.full(int(known.sum()), position)

    def _index(self, watch: Watch) -> FloatArray:
        """[N, C] pooled tokens of the frames."""
        key = weights_fingerprint(self._model)
        path = self._scene.path / TOKENS / f"{'small-' if self._small else ''}{str(key)[:16]}.npz"
        positions = np.array(self._positions)
        if path.is_file():
            with np.load(path) as kept:
                if np.array_equal(kept["positions"], positions):
                    return np.asarray(kept["pooled"])
        with torch.inference_mode():
            rows = watch(self._positions, "looking at the run", len(positions))
            pooled = np.stack([_pool(self._view(position)) for position in rows])
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as part:
            np.savez(part, positions=positions, pooled=pooled)
        return pooled

    def _view(self, position: int) -> View:
        if position not in self._views:
            while len(self._views) >= VIEWS_KEPT:
                self._views.popitem(last=False)
            frame = self._frames[position]
            self._views[position] = self._encoded(_full_frame(frame))
        self._views.move_to_end(position)
        return self._views[position]

    def _encoded(self, frame: Frame) -> View:
        view = as_view(frame, next(iter(self._model.parameters())).device)
        assert view.image is not None
        return View(view.image, tokens=self._model.encode(view.image))

    def _prepare(self, picture: RGBImage, name: str) -> Frame:
        return to_frame(RawFrame(picture, 0, 0.0, name), self._model.input)


def _pooled_matches(
    scene: Scene, parts: Sequence[tuple[FloatArray, FloatArray, Any]], most: int | None = None, seed: int = 0
) -> Correspondences:
    """All matches together, each pair of pixel and point once; of more than ``most`` as many at random."""
    pixels, points, positions = (np.concatenate([part[k] for part in parts]) for k in range(3))
    _, first = np.unique(np.hstack([pixels, points]), axis=0, return_index=True)
    rows = np.sort(first)
    if most is not None and len(rows) > most:
        rows = np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
    positions = positions[rows].astype(np.int64)
    return Correspondences(
        pixels[rows], points[rows], scene.table.indices[positions], scene.cameras.c2w[positions, :3, 3]
    )


def _pool(view: View) -> FloatArray:
    assert view.tokens is not None
    return np.asarray(view.tokens[0].float().mean(dim=0).cpu().numpy())


def _unit(rows: FloatArray) -> FloatArray:
    unit: FloatArray = rows / np.linalg.norm(rows, axis=-1, keepdims=True).clip(1e-12)
    return unit


def _small_frame(frame: Frame) -> Frame:
    """With its picture in a quarter of the memory."""
    return dataclasses.replace(frame, image=(frame.image * 255).round().byte())


def _full_frame(frame: Frame) -> Frame:
    return dataclasses.replace(frame, image=frame.image.float() / 255)
