"""Which method a source gets and why; and that each of them fills the same kind of scene."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import threer
from threer.config import AlignmentConfig, ReconstructConfig, RecurrentConfig, StreamingConfig
from threer.errors import CheckpointError, ReconstructionError, SourceError, ThreerError
from threer.io.sources import open_source
from threer.io.video import write_video
from threer.models import (
    CUT3R,
    SLAM3R,
    CUT3RConfig,
    DUSt3R,
    DUSt3RConfig,
    Fast3R,
    Fast3RConfig,
    SLAM3RConfig,
    registry,
    save_checkpoint,
)
from threer.nn.dpt import DPTDims
from threer.pipelines.methods import choose_method, load_method
from threer.pipelines.reconstruct import Start
from threer.types import Checkpoint, Update

SIZES = {"enc_dim": 16, "enc_depth": 1, "enc_heads": 2, "dec_dim": 16, "dec_heads": 2}
COUNT = 7


def tiny(family: str) -> torch.nn.Module:
    torch.manual_seed(3)
    if family == "slam3r":
        return SLAM3R.from_config(SLAM3RConfig(image_size=32, dec_depth=2, ray_prior=0.6, **SIZES))
    if family == "dust3r":
        return DUSt3R(DUSt3RConfig(image_size=32, dec_depth=2, ray_prior=0.6, **SIZES))
    if family == "cut3r":
        sizes = {"state_size": 6, "state_heads": 4, "memory_size": 3, "ray_heads": 4, "ray_prior": 0.6}
        return CUT3R(CUT3RConfig(image_size=32, dec_depth=2, **SIZES, **sizes))
    # Longer than a square's 224 pixels, so that photos keep their shapes.
    return Fast3R(Fast3RConfig(image_size=240, dec_depth=4, head="dpt", dpt=DPTDims(8, 4, (4, 4, 8, 8)), **SIZES))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("weights")
    for family in ("slam3r", "dust3r", "cut3r", "fast3r"):
        card = Checkpoint(f"{family}-tiny", family, (), "Apache-2.0", metric=family == "cut3r")
        save_checkpoint(tiny(family), root / f"{family}-tiny", card)
    return {folder.name.removesuffix("-tiny"): folder for folder in root.iterdir()}


@pytest.fixture
def shelf(weights: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A package whose weights are the tiny ones, and a disk without others."""
    monkeypatch.setattr(registry, "packaged_folder", lambda: weights["slam3r"].parent)
    monkeypatch.setattr(registry, "_on_disk", lambda card: ())


@pytest.fixture(autouse=True)
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threer.pipelines.reconstruct.draw_preview", lambda scene: None)


@pytest.fixture
def photos(tmp_path: Path) -> Callable[..., list[Path]]:
    """Makes image files of names that do not count upwards in steps, in turn landscape and portrait."""

    def make(count: int, name: Callable[[int], str] = lambda i: f"{i * i}.png", turn: bool = True) -> list[Path]:
        folder = tmp_path / "photos"
        folder.mkdir(exist_ok=True)
        paths = []
        for i in range(count):
            x, y = np.meshgrid(np.arange(60), np.arange(40))
            image = np.stack([x * 4, y * 6, (x + y + 9 * i) % 256], axis=-1).astype(np.uint8)
            paths.append(folder / name(i))
            Image.fromarray(image if i % 2 == 0 or not turn else image.transpose(1, 0, 2)).save(paths[-1])
        return paths

    return make


def everything(method: str) -> bool:
    return True


def only(*methods: str) -> Callable[[str], bool]:
    return lambda method: method in methods


@pytest.mark.parametrize(
    ("count", "on_disk", "method", "words"),
    [
        (1, everything, "dust3r", "one photo"),
        (2, everything, "dust3r", "2 photos"),
        (4, everything, "dust3r", "4 photos, few enough to look at all pairs"),
        (30, everything, "dust3r", "30 photos, few enough"),
        (4, only("fast3r"), "fast3r", r"not dust3r \(its weights are not on this disk\)"),
        (31, everything, "fast3r", "31 photos are looked at together$"),
        (4, only("cut3r", "slam3r"), "cut3r", r"fast3r \(its weights are not on this disk\)"),
        (4, only("slam3r"), "slam3r", "cut3r.*taken as a video in the order of their names; unordered photos"),
        (1, only("slam3r"), "dust3r", "one photo"),  # alone it is nothing for slam3r: loading says what to get
        (1, only("fast3r"), "fast3r", r"not dust3r \(its weights are not on this disk\)"),
        (4, only(), "dust3r", "4 photos"),
    ],
)
def test_photos(
    photos: Callable[..., list[Path]], count: int, on_disk: Callable[[str], bool], method: str, words: str
) -> None:
    choice = choose_method(open_source(photos(count)), on_disk)
    assert choice.method == method
    assert re.search(words, choice.why)


def test_more_photos_than_fast3r_tells_apart(photos: Callable[..., list[Path]]) -> None:
    paths = photos(4)
    choice = choose_method(open_source(paths * 251), everything)
    assert choice.method == "cut3r"
    assert "at most 1000 frames" in choice.why


def test_whatever_is_in_order_is_streamed(photos: Callable[..., list[Path]], tmp_path: Path) -> None:
    numbered = open_source(photos(5, lambda i: f"frame{i}.png"))
    assert choose_method(numbered, everything).method == "slam3r"
    assert "numbered" in choose_method(numbered, everything).why
    assert choose_method(numbered, only("cut3r")).method == "cut3r"
    write_video(tmp_path / "clip.mp4", [np.zeros((32, 32, 3), np.uint8)] * 3, fps=5)
    assert "video" in choose_method(open_source(tmp_path / "clip.mp4"), everything).why
    for live in (f"watch:{numbered.paths[0].parent}", "http://localhost:1/stream"):
        assert choose_method(open_source(live), everything).method == "slam3r"
    assert "live" in choose_method(open_source("http://localhost:1/stream"), everything).why


@pytest.mark.parametrize(
    ("method", "count"),
    [("slam3r", COUNT), ("cut3r", COUNT), ("fast3r", COUNT), ("dust3r", COUNT), ("dust3r", 2), ("dust3r", 1)],
)
def test_every_method_fills_the_same_scene(
    method: str, count: int, shelf: None, photos: Callable[..., list[Path]], tmp_path: Path
) -> None:
    started: list[Start] = []
    heard: list[Update] = []

    class Listener:
        def on(self, update: Update) -> None:
            heard.append(update)

    streaming = StreamingConfig(stride=1, radius=2, init_frames=3, init_min_conf=0, track_min_conf=0)
    scene = threer.reconstruct(
        photos(count, turn=False),
        tmp_path / "out",
        method=method,
        streaming=streaming,
        device="cpu",
        observers=[Listener()],
        on_start=started.append,
        intrinsics=(60.0, 60.0, 29.5, 19.5),
    )
    assert (started[0].method, started[0].checkpoint.name) == (method, f"{method}-tiny")
    assert scene.state == "complete"
    assert scene.settings["method"] == method
    assert scene.metric == (method == "cut3r")
    assert len(scene) == count == scene.report["counts"]["final"]
    assert [u.frame.index for u in heard if u.kind == "final"] == list(range(count))
    assert len(scene.cloud()) > 0
    for position in range(count):
        frame = scene.frame(position)
        assert frame.points.shape == (*frame.conf.shape, 3) == frame.colours.shape
        assert np.isfinite(frame.points[frame.conf > 0]).all()
        np.testing.assert_allclose(frame.K, [[60, 0, 29.5], [0, 60, 19.5], [0, 0, 1]])


def test_weights_decide_and_must_fit(
    weights: dict[str, Path], photos: Callable[..., list[Path]], tmp_path: Path
) -> None:
    started: list[Start] = []
    source: Sequence[Path] = photos(3)
    scene = threer.reconstruct(
        source, tmp_path / "out", weights=str(weights["fast3r"]), device="cpu", on_start=started.append
    )
    assert scene.settings["method"] == started[0].method == "fast3r"
    assert "are fast3r's" in started[0].why
    with pytest.raises(ThreerError, match=r"of another system: dust3r's, and fast3r needs its own"):
        threer.reconstruct(source, tmp_path / "b", weights=str(weights["dust3r"]), method="fast3r", device="cpu")


def test_auto_takes_what_is_there(shelf: None, photos: Callable[..., list[Path]], tmp_path: Path) -> None:
    started: list[Start] = []
    threer.reconstruct(photos(4), tmp_path / "out", device="cpu", on_start=started.append)
    assert started[0].method == "dust3r"
    assert started[0].checkpoint.name == "dust3r-tiny"


def test_missing_weights_say_how_to_get_them(
    photos: Callable[..., list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_on_disk", lambda card: ())
    monkeypatch.setattr(registry, "_packaged", dict)
    with pytest.raises(CheckpointError, match="'fast3r' are not on this disk: fast3r@hub downloads them"):
        threer.reconstruct(photos(3), tmp_path / "out", method="fast3r")


def test_dust3r_weights_align_photos_and_stream_what_is_in_order(
    weights: dict[str, Path], photos: Callable[..., list[Path]], tmp_path: Path
) -> None:
    config = ReconstructConfig(weights=str(weights["dust3r"]))
    for count, name, method in (
        (5, lambda i: f"{i * i}.png", "dust3r"),
        (31, lambda i: f"{i * i}.png", "dust3r-stream"),
        (4, lambda i: f"frame{i}.png", "dust3r-stream"),
        (2, lambda i: f"frame{i}.png", "dust3r"),
    ):
        choice, _ = load_method(open_source(photos(count, name)), config, "cpu")
        assert choice.method == method, count


def test_a_pair_graph_in_parts_is_an_error(shelf: None, photos: Callable[..., list[Path]], tmp_path: Path) -> None:
    alignment = AlignmentConfig(pair_graph="one-reference", pair_distance=1)
    words = r"falls into 3 parts that never meet: 0.png, 1.png; 4.png; 9.png"
    heard: list[tuple[str, int, int]] = []
    config = ReconstructConfig(method="dust3r", alignment=alignment, device="cpu")
    with pytest.raises(ReconstructionError, match=words):
        threer.reconstruct(photos(4), tmp_path / "out", config, on_progress=lambda *what: heard.append(what))
    assert heard == [("photos", k, 4) for k in (1, 2, 3, 4)]


def test_a_second_pass_replaces_every_frame(shelf: None, photos: Callable[..., list[Path]], tmp_path: Path) -> None:
    heard: list[Update] = []

    class Listener:
        def on(self, update: Update) -> None:
            heard.append(update)

    recurrent = RecurrentConfig(second_pass=True)
    paths = photos(4)
    scene = threer.reconstruct(
        paths, tmp_path / "out", method="cut3r", recurrent=recurrent, device="cpu", observers=[Listener()]
    )
    assert [(u.kind, u.frame.index) for u in heard] == [(k, i) for k in ("provisional", "final") for i in range(4)]
    assert len(scene) == 4
    with pytest.raises(ThreerError, match="second_pass reads the source twice"):
        threer.reconstruct(
            f"watch:{paths[0].parent}", tmp_path / "b", method="cut3r", recurrent=recurrent, device="cpu"
        )


@pytest.mark.parametrize("method", ["cut3r", "fast3r"])
def test_an_interrupted_run_begins_anew(
    method: str, shelf: None, photos: Callable[..., list[Path]], tmp_path: Path
) -> None:
    class Impatient:
        def on(self, update: Update) -> None:
            if update.frame.index == 3:
                raise KeyboardInterrupt

    paths = photos(6)
    whole = threer.reconstruct(paths, tmp_path / "whole", method=method, device="cpu", save_every=0)
    with pytest.raises(KeyboardInterrupt):
        threer.reconstruct(
            paths, tmp_path / "out", method=method, device="cpu", save_every=0, observers=[Impatient()]
        )
    scene = threer.reconstruct(paths, tmp_path / "out", method=method, device="cpu", resume=True, save_every=0)
    assert (scene.state, len(scene)) == ("complete", 6)
    np.testing.assert_array_equal(scene.cameras.c2w, whole.cameras.c2w)
    assert (tmp_path / "out" / "points.ply").read_bytes() == (tmp_path / "whole" / "points.ply").read_bytes()


def test_photos_keep_their_shape(shelf: None, photos: Callable[..., list[Path]], tmp_path: Path) -> None:
    scene = threer.reconstruct(photos(3), tmp_path / "out", method="fast3r", device="cpu")
    assert [scene.frame(i).conf.shape for i in range(3)] == [(160, 240), (240, 160), (160, 240)]


@pytest.mark.parametrize("method", ["slam3r", "cut3r", "fast3r", "dust3r"])
def test_one_lens_cannot_be_that_of_two_sizes(
    method: str, shelf: None, photos: Callable[..., list[Path]], tmp_path: Path
) -> None:
    with pytest.raises(ReconstructionError, match=r"0\.png is 60×40 and 1\.png 40×60: leave the intrinsics out"):
        threer.reconstruct(photos(2), tmp_path, method=method, device="cpu", intrinsics=(60.0, 60.0, 29.5, 19.5))


def test_a_photo_that_is_a_strip_is_named(shelf: None, photos: Callable[..., list[Path]], tmp_path: Path) -> None:
    paths = photos(2)
    Image.new("RGB", (900, 9)).save(paths[1])
    with pytest.raises(SourceError, match=r"1\.png: an image of 900×9 is too narrow.*crop it or leave it out"):
        threer.reconstruct(paths, tmp_path / "out", method="fast3r", device="cpu")


def test_one_photo_is_enough_for_fast3r(shelf: None, photos: Callable[..., list[Path]], tmp_path: Path) -> None:
    scene = threer.reconstruct(photos(1), tmp_path / "out", method="fast3r", device="cpu")
    assert len(scene) == scene.report["views"] == 1
