"""Focal lengths of the classical baseline: from a photo's EXIF, and whether a given one fits."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from PIL import ExifTags, Image

import threer
from threer.config import ClassicalConfig, ReconstructConfig
from threer.data.synthetic.clips import WALK, Clip, render_clip
from threer.errors import ReconstructionError
from threer.io.exif import PhotoFocal
from threer.io.frames import RawFrame, to_frame
from threer.io.images import RGBImage
from threer.pipelines.classical import given, photos
from threer.pipelines.classical.features import FeatureStore
from threer.pipelines.classical.given import doubt_given_focal
from threer.pipelines.classical.mapping import Mapped, map_images
from threer.pipelines.classical.matching import choose_pairs, match
from threer.pipelines.classical.model import as_sparse_model
from threer.pipelines.classical.photos import left_aside, map_photos
from threer.pipelines.classical.session import ClassicalSession, NoNetwork

pytest.importorskip("pycolmap", reason="the classical baseline needs pycolmap: pip install 'threer[refine]'")

SIZE = (256, 192)
FRAMES = 7
QUICK = ClassicalConfig(depth_size=64, depth_planes=8, depth_partners=1)


@pytest.fixture(scope="module")
def clip() -> Clip:
    return render_clip(9, FRAMES, SIZE, dataclasses.replace(WALK, antialias=False))


def pictures(clip: Clip) -> list[RGBImage]:
    return [(f.permute(1, 2, 0) * 255).round().byte().numpy().copy() for f in clip.images]


def test_photos_begin_with_the_focal_length_of_their_exif(clip: Clip, tmp_path: Path) -> None:
    true = float(clip.K[0, 0, 0])
    source = tmp_path / "photos"
    source.mkdir()
    for i, picture in enumerate(pictures(clip)[:5]):
        exif = Image.Exif()
        film = 0 if i == 3 else round(true / np.hypot(*SIZE) * 43.2666)  # EXIF has whole millimetres
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm] = film
        Image.fromarray(picture).save(source / f"{i}.jpg", quality=98, exif=exif)
    scene = threer.reconstruct(source, tmp_path / "run", ReconstructConfig(method="sfm", classical=QUICK))
    assert scene.cameras.found.all()
    focal = scene.cameras.K[:, 0, 0]
    np.testing.assert_allclose(focal, true, rtol=0.05)
    notes = scene.report["notes"]
    assert any("EXIF gave the focal length to begin with for 4 of 5 pictures, " in note for note in notes)
    assert any("left aside for 3.jpg: a focal length of 0 image sides" in note for note in notes)
    assert len(set(focal)) == 2  # the photo that does not say has a camera of its own


@pytest.fixture
def store(clip: Clip, features: Path, tmp_path: Path) -> Iterator[FeatureStore]:
    opened = FeatureStore(Path(shutil.copytree(features, tmp_path / "features")))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def features(clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features and matches of the clip, made without a word about the focal length."""
    folder = tmp_path_factory.mktemp("features")
    store = FeatureStore(folder)
    ids = [store.add(picture) for picture in pictures(clip)]
    match(store, choose_pairs(store, ids, in_order=True, all_up_to=200, similar=20), seed=0)
    store.close()
    return folder


def test_exif_far_from_what_pictures_say_has_not_the_last_word(clip: Clip, store: FeatureStore) -> None:
    true = float(clip.K[0, 0, 0])
    ids = range(1, FRAMES + 1)
    mapped, (note,) = map_photos(store, {image: PhotoFocal(true / 2) for image in ids})
    model = as_sparse_model(mapped.model)
    assert len(model.images) == FRAMES
    # From a guess the scene bends to 2.6 times the focal length, and misses its pixels by more.
    np.testing.assert_allclose(model.K[:, 0, 0], true, rtol=0.05)
    assert f"for 7 of 7 pictures, {true / 2:.0f} px became" in note
    assert "EXIF is wrong, or" in note


def test_where_exif_leads_nowhere_mapping_begins_from_a_guess(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = []

    def stubborn(store: FeatureStore, images: list[int], **options: Any) -> Mapped:
        began.append(store.begins_with(images[0]))
        if len(began) == 1:
            raise ReconstructionError("no camera path")
        return map_images(store, images, **options)

    monkeypatch.setattr(photos, "map_images", stubborn)
    ids = range(1, 5)
    mapped, (note,) = map_photos(store, {image: PhotoFocal(900.0) for image in ids})
    assert began == [900.0, None]
    assert mapped.model.num_reg_images() == len(ids)
    assert "900 px became" in note
    assert "EXIF is wrong, or" in note
    monkeypatch.setattr(photos, "map_images", lambda *_, **__: began.clear() or stubborn(store, [1]))
    with pytest.raises(ReconstructionError, match="no camera path"):
        map_photos(store, {image: PhotoFocal(900.0) for image in ids})


@pytest.mark.parametrize("factor", [1.0, 2.5])
def test_a_wrong_focal_length_that_was_given_is_told(factor: float) -> None:
    clip = render_clip(3, 6, SIZE, dataclasses.replace(WALK, antialias=False))
    K = clip.K[0].double().numpy()
    K[[0, 1], [0, 1]] *= factor
    session = ClassicalSession(QUICK, intrinsics=K)
    spec = NoNetwork(QUICK).input
    for i, picture in enumerate(pictures(clip)):
        session.look(picture)
        session.push(to_frame(RawFrame(picture, i, i / 5, f"{i}.png"), spec))
    for update in session.finish():
        np.testing.assert_allclose(update.K, K, rtol=1e-6)  # what was given stays
    told = [note for note in session.report["notes"] if "does not fit these pictures" in note]
    assert len(told) == (factor != 1)
    if told:
        assert f"given focal length of {K[0, 0]:.0f} px" in told[0]
        found = float(told[0].split("pictures, ")[1].split(" px")[0])
        assert abs(found / (K[0, 0] / factor) - 1) < 0.35


class Freed:
    """Of a pycolmap Reconstruction, what `doubt_given_focal` asks for; a bundle adjustment changes both numbers."""

    def __init__(self, error: float, focal: float) -> None:
        self.error, self.focal = error, focal
        self.images = {1: SimpleNamespace(camera_id=7)}
        self.cameras = {7: SimpleNamespace(mean_focal_length=lambda: self.focal)}

    def __deepcopy__(self, _: object) -> Freed:
        return Freed(self.error, self.focal)

    def reg_image_ids(self) -> list[int]:
        return [1]

    def update_point_3d_errors(self) -> None:
        pass

    def compute_mean_reprojection_error(self) -> float:
        return self.error


@pytest.mark.parametrize(
    ("error", "focal", "told"),
    [(0.9, 200.0, False), (0.5, 108.0, False), (0.5, 92.0, False), (0.8, 115.0, True), (0.8, 85.0, True)],
)
def test_a_focal_length_is_doubted_only_where_another_is_clearly_better(
    error: float, focal: float, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def adjuster(_: object, __: object, freed: Freed) -> SimpleNamespace:
        return SimpleNamespace(solve=lambda: freed.__init__(error, focal))  # type: ignore[misc]

    colmap = MagicMock(create_default_bundle_adjuster=adjuster)
    monkeypatch.setattr(given, "quiet", lambda: nullcontext(colmap))
    model = Freed(1.0, 100.0)
    assert (doubt_given_focal(model) is not None) == told
    assert (model.error, model.focal) == (1.0, 100.0)


def test_given_intrinsics_win(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    K = clip.K[0].double().numpy()
    session = ClassicalSession(QUICK, intrinsics=K)
    spec = NoNetwork(QUICK).input
    for i, picture in enumerate(pictures(clip)[:4]):
        session.look(picture, PhotoFocal(900.0) if i else PhotoFocal(problem="absurd"))
        session.push(to_frame(RawFrame(picture, i, i / 5, f"{i}.png"), spec))
    for update in session.finish():
        np.testing.assert_allclose(update.K, K, rtol=1e-6)
    assert not any("EXIF" in note for note in session.report["notes"])


def test_cameras_are_shared_by_size_and_focal_length_and_can_be_changed(store: FeatureStore) -> None:
    store.begin_with({1: 300.0, 2: 300.0, 3: 150.0})
    assert [store.begins_with(image) for image in (1, 2, 3, 4)] == [300.0, 300.0, 150.0, None]
    before = store.verified()
    store.close()
    again = FeatureStore(store.folder)  # a later run
    again.begin_with({1: 300.0, 2: None, 3: 300.0})
    assert [again.begins_with(image) for image in (1, 2, 3, 4)] == [300.0, None, 300.0, None]
    assert len({again.camera(image) for image in (1, 3)}) == len({again.camera(image) for image in (2, 4)}) == 1
    assert again.verified().keys() == before.keys()


def test_what_is_left_aside_is_told_once_for_each_reason() -> None:
    focals = [PhotoFocal(500.0), PhotoFocal(problem="a"), PhotoFocal(problem="b"), PhotoFocal(problem="a")]
    one, other = left_aside(["1.jpg", "2.jpg", "3.jpg", "4.jpg"], focals)
    assert one.endswith("is left aside for 2.jpg and 1 more: a")
    assert other.endswith("is left aside for 3.jpg: b")
