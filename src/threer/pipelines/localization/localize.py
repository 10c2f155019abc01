"""Where pictures were taken that are not in a run (visual localisation, DUSt3R 4.2; pipelines.md 2.4)."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from threer.config import LocalizeConfig
from threer.errors import SourceError
from threer.io.images import RGBImage, check_picture
from threer.io.intrinsics import Undistortion, intrinsic_matrix, with_known_lens
from threer.io.runs import Scene
from threer.io.sources import open_source
from threer.pipelines.localization.landmarks import Watch
from threer.pipelines.localization.matchers import Matcher, make_matcher
from threer.pipelines.localization.pose import Correspondences, Judgement, find_camera
from threer.pipelines.localization.result import Lens, LocalizedCamera
from threer.types import FloatArray

DIAGONAL_SHARE = 0.008
MOST_FRAMES_NAMED = 5

Query = str | Path | RGBImage


@dataclass(frozen=True, eq=False)
class _Picture:
    """A picture to be found, or why there is none."""

    name: str
    image: RGBImage | None
    why: str = ""


def localize(
    scene: Scene | str | Path,
    images: Query | Sequence[Query],
    config: LocalizeConfig | None = None,
    *,
    watch: Watch = lambda them, _what, _count: them,
    **settings: Any,
) -> list[LocalizedCamera]:
    """Find the camera of pictures in a finished run, of whatever method.

    scene   the run, or its folder
    images  image files, folders, patterns or videos, or pictures [H, W, 3] uint8
    config  all settings; single ones can be given by name instead: ``retrieved=10``
    watch   goes through what takes long and may tell somebody

    Frames of the run that look most alike are matched with each picture; matches with pixels whose world point is
    known give the camera by P3P in LO-RANSAC, refined on all inliers. The answer for a picture that cannot be read
    or found has the status ``failed`` or ``ambiguous`` with the reason; the others go on.

    A run of a network is localised in by its own dense points; the pictures of its source are read again for their
    features, which are kept in the run's folder for the next time.

    Raises `RunError` for a run that cannot be used, and ThreerError for settings or packages.
    """
    config = with_known_lens(dataclasses.replace(config or LocalizeConfig(), **settings))
    scene = scene if isinstance(scene, Scene) else Scene.open(scene)
    single = isinstance(images, str | Path) or (isinstance(images, np.ndarray) and images.ndim == 3)
    queries: Sequence[Query] = [images] if single else images  # type: ignore[assignment, list-item]
    matcher = make_matcher(scene, config, watch)
    try:
        lenses = _Lenses(scene, config)
        pictures = _read(queries, config)
        return [_localize(picture, matcher, lenses, config) for picture in _watched(pictures, watch, len(queries))]
    finally:
        matcher.close()


def _watched(pictures: Iterable[_Picture], watch: Watch, least: int) -> Iterator[_Picture]:
    """The pictures, while somebody is told how many were done."""
    waiting = iter(pictures)
    for _ in watch(range(least), "pictures", least):
        picture = next(waiting, None)
        if picture is None:
            return
        yield picture
    yield from waiting


def _read(queries: Sequence[Query], config: LocalizeConfig) -> Iterator[_Picture]:
    for number, query in enumerate(queries):
        if not isinstance(query, str | Path):
            try:
                image = check_picture(query)
                _check_size(image, config)
                undistortion = Undistortion.of(config)
                yield _Picture(f"picture {number}", image if undistortion is None else undistortion(image))
            except SourceError as error:
                yield _Picture(f"picture {number}", None, str(error))
            continue
        alone = ""
        try:
            source = open_source(query, config)
            alone = Path(query).name if source.expected == 1 and source.kind == "images" else ""
            for raw in source:
                yield _Picture(raw.name, raw.image)
        except SourceError as error:
            yield _Picture(alone or str(query), None, str(error))
        else:
            for skipped in source.skipped:
                yield _Picture(skipped.name, None, skipped.reason)


def _check_size(image: RGBImage, config: LocalizeConfig) -> None:
    """Raises SourceError for a picture that the intrinsics do not hold for, as sources do."""
    size = image.shape[1], image.shape[0]
    if config.intrinsics_size is not None and size != tuple(config.intrinsics_size):
        width, height = config.intrinsics_size
        raise SourceError(f"the intrinsics hold for pictures of {width}×{height}, and this is {size[0]}×{size[1]}")


class _Lenses:
    """Which intrinsics to try for a picture, in order; None stands for an unknown focal length."""

    def __init__(self, scene: Scene, config: LocalizeConfig) -> None:
        self._config = config
        self._given = intrinsic_matrix(config)
        cameras = scene.cameras
        known = np.isfinite(cameras.K).all(axis=(1, 2)) & cameras.found
        self._run: dict[tuple[int, int], FloatArray] = {}
        for size in {(int(w), int(h)) for w, h in cameras.size[known]}:
            same = known & (cameras.size == size).all(axis=1)
            self._run[size] = np.median(cameras.K[same], axis=0)
        bent = None if cameras.distortion is None or not known.any() else cameras.distortion[int(known.argmax())]
        self._bent = None if bent is None else tuple(bent.tolist())
        self._fisheye = cameras.fisheye

    def of(self, image: RGBImage) -> list[tuple[Lens, FloatArray | None, RGBImage]] | str:
        """(where it is from, K, the picture without distortion) of each worth trying, or why there is none."""
        if self._given is not None:
            return [("given", self._given, image)]
        size = image.shape[1], image.shape[0]
        K = self._run.get(size)
        unknown: tuple[Lens, FloatArray | None, RGBImage] = ("estimated", None, image)
        if self._config.camera == "unknown" or (self._config.camera == "auto" and K is None):
            return [unknown]
        if K is None:
            sizes = ", ".join(f"{w}×{h}" for w, h in self._run) or "none"
            return f"it is {size[0]}×{size[1]}, and the run's camera is known for {sizes}: give --intrinsics"
        seen = image if self._bent is None else Undistortion(K, self._bent, fisheye=self._fisheye)(image)
        own: tuple[Lens, FloatArray | None, RGBImage] = ("run", K, seen)
        return [own] if self._config.camera == "run" else [own, unknown]


def _localize(picture: _Picture, matcher: Matcher, lenses: _Lenses, config: LocalizeConfig) -> LocalizedCamera:
    if picture.image is None:
        return LocalizedCamera(picture.name, "failed", picture.why)
    size = picture.image.shape[1], picture.image.shape[0]
    choices = lenses.of(picture.image)
    if isinstance(choices, str):
        return LocalizedCamera(picture.name, "failed", choices, size=size)
    threshold = config.threshold or DIAGONAL_SHARE * float(np.hypot(*size))
    first: LocalizedCamera | None = None
    matched: RGBImage | None = None
    for lens, K, image in choices:
        if matched is not image:
            matches, matched = matcher.match(image, picture.name), image
        if isinstance(matches, str):
            return LocalizedCamera(picture.name, "failed", matches, size=size)
        judgement = find_camera(
            matches,
            size,
            K,
            threshold=threshold,
            least=matcher.least,
            least_share=matcher.least_share,
            seed=config.seed,
        )
        answer = _answer(picture.name, size, lens, matches, judgement)
        if answer.status != "failed":
            return answer
        first = first or answer
    assert first is not None
    return first


def _answer(
    name: str, size: tuple[int, int], lens: Lens, matches: Correspondences, judgement: Judgement
) -> LocalizedCamera:
    camera, known = judgement.camera, judgement.uncertainty
    count = 0 if camera is None else camera.count
    told = LocalizedCamera(name, judgement.status, judgement.why, size=size, matches=len(matches), inliers=count)
    if judgement.status != "found" or camera is None or known is None:
        return told
    shared = Counter(matches.frames[camera.inliers].tolist()).most_common(MOST_FRAMES_NAMED)
    return dataclasses.replace(
        told,
        c2w=camera.c2w,
        K=camera.K,
        lens=lens,
        reprojection_error_px=camera.error_px,
        position_sigma=known.position_sigma,
        rotation_sigma_deg=known.rotation_sigma_deg,
        covariance=known.covariance,
        frames=tuple(int(frame) for frame, _ in shared),
    )
