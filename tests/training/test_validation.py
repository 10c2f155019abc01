"""What is held out on disk is scored: right, the same each time, and never what is trained on."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

import layouts
from threer.errors import ThreerError
from threer.training.held_out import DiskSamples, held_out
from threer.training.photographs import Photographs
from threer.training.recipes.recipe import Recipe, Resolution, Source
from threer.training.scores import Scoring, slopes
from threer.training.trainer import Options, Trainer
from threer.training.validation import CONSTANT, MEAN, Validation, shares_of
from threer.types import Pointmap, Prediction, View
from tiny_training import PAIRS, WINDOWS, tiny_recipe

TRAINED, HELD_OUT = 3, 7  # seeds of the clips


def recipe(
    sources: Mapping[str, Source], samples: int = 5, size: tuple[int, int] = (32, 32), **views: Any
) -> Recipe:
    made = tiny_recipe(PAIRS, "pairs")
    return replace(
        made,
        data=replace(made.data, sources=dict(sources)),
        views=replace(made.views, **views),
        resolution=Resolution((size,)),
        validation=replace(made.validation, samples=samples, views=None),
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bedlam and mapfree with a walk held out, spring without, re10k with cameras only."""
    root = tmp_path_factory.mktemp("data")
    trained, unseen = layouts.truth(TRAINED), layouts.truth(HELD_OUT)
    for name in ("bedlam", "mapfree", "spring", "re10k"):
        depth = "" if name == "re10k" else ".npy"
        layouts.folders(root / name / "train", trained, depth=depth)
        if name != "spring":
            layouts.folders(root / name / "test", unseen, scene="unseen", depth=depth)
    return root


def drawn(samples: DiskSamples) -> list[tuple[tuple[str, ...], Tensor]]:
    """What each batch of all samples is made of."""
    numbers = list(range(len(samples)))
    return [(b.sources, b.images) for b in samples.batches([numbers[k : k + 2] for k in range(0, len(numbers), 2)])]


@dataclass(eq=False)
class Seer:
    """A network that knows each picture of a clip, and answers with the points of the files.

    off  what it adds to the points of frames other than the first view's
    """

    truth: layouts.Truth
    off: float = 0.0

    def __call__(self, views: list[View]) -> list[Prediction]:
        frames = torch.stack([self._frames(view) for view in views])
        return [
            Prediction(Pointmap(points, torch.ones(points.shape[:-1])), "first")
            for points in (self._points(frames[0], frame) for frame in frames)
        ]

    def _frames(self, view: View) -> Tensor:
        assert view.image is not None
        shown = ((view.image + 1) * 127.5).round().permute(0, 2, 3, 1).numpy()
        return torch.tensor([int(np.abs(self.truth.images - image).sum((1, 2, 3)).argmin()) for image in shown])

    def _points(self, first: Tensor, own: Tensor) -> Tensor:
        t = self.truth
        v, u = np.mgrid[: layouts.SIZE[1], : layouts.SIZE[0]]
        rays = np.stack([(u - t.K[0, 2]) / t.K[0, 0], (v - t.K[1, 2]) / t.K[1, 1], np.ones(u.shape)], -1)
        moved = []
        for a, b in zip(first.tolist(), own.tolist(), strict=True):
            pose = np.linalg.inv(t.c2w[a]) @ t.c2w[b]
            camera = rays * t.depth[b][..., None]
            camera[t.depth[b] > 3.0] = 100.0  # what does not count may be anything
            moved.append(camera @ pose[:3, :3].T + pose[:3, 3] + self.off * (a != b))
        return torch.from_numpy(np.stack(moved)).float()


def test_a_network_that_knows_the_files_makes_no_error(data: Path) -> None:
    made = recipe({"bedlam": Source(far=3.0)}, size=layouts.SIZE)
    samples = DiskSamples("bedlam", made, data, "cpu")
    (batch,) = samples.batches([range(len(samples))])
    assert 0.05 < (~batch.valid).float().mean() < 0.95, "some of it is too far to count"
    validation = Validation(made, {"bedlam": samples})
    seer: Any = Seer(layouts.truth(HELD_OUT))
    scores = validation.network(lambda action: action(seer))
    assert list(scores) == ["error", "abs_rel", "inlier", "window_error", "alone_error"]
    for name, value in scores.items():
        assert value == pytest.approx(1.0 if name == "inlier" else 0.0, abs=2e-5), name
    wrong: Any = Seer(layouts.truth(HELD_OUT), off=0.3)
    moved = validation.network(lambda action: action(wrong))
    assert moved["error"] == pytest.approx(0, abs=2e-5)
    assert moved["window_error"] > 0.02


def test_samples_are_the_same_each_time_and_follow_the_seed(data: Path) -> None:
    made = recipe({"bedlam": Source()})
    samples = DiskSamples("bedlam", made, data, "cpu")
    assert len(samples) == 5
    first, again, other_run = drawn(samples), drawn(samples), drawn(DiskSamples("bedlam", made, data, "cpu"))
    for a, b, c in zip(first, again, other_run, strict=True):
        assert a[0] == b[0] == c[0]
        assert torch.equal(a[1], b[1])
        assert torch.equal(a[1], c[1])
    names = [name for sources, _ in first for name in sources]
    assert len(set(names)) == 5
    assert all("test/unseen" in name for name in names)
    (alone,) = samples.batches([[3]])
    assert alone.sources[0] == names[3], "a sample is known by its number alone"
    changed = replace(made, validation=replace(made.validation, seed=1))
    assert drawn(DiskSamples("bedlam", changed, data, "cpu"))[0][0] != first[0][0]
    many = replace(made, validation=replace(made.validation, samples=1000))
    assert len(DiskSamples("bedlam", many, data, "cpu")) == layouts.FRAMES, "one sample of each start"


@pytest.mark.parametrize(("samples", "at_once", "world"), [(5, 2, 1), (5, 2, 2), (7, 1, 3), (2, 4, 4), (48, 16, 3)])
def test_every_sample_counts_once_whatever_the_processes(samples: int, at_once: int, world: int) -> None:
    shares = [shares_of(samples, at_once, world, rank) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1, "a sharded network needs all processes each time"
    assert all(1 <= len(part) <= at_once for share in shares for part, _ in share)
    counted = [number for share in shares for part, counts in share if counts for number in part]
    assert sorted(counted) == list(range(samples))


def test_windows_begin_with_their_middle_and_know_the_world(data: Path) -> None:
    windows = tiny_recipe(WINDOWS, "windows")
    made = replace(
        windows,
        data=replace(windows.data, sources={"bedlam": Source(interval=1)}),
        views=replace(windows.views, drop_world=True),
        validation=replace(windows.validation, samples=1, views=5),
    )
    samples = DiskSamples("bedlam", made, data, "cpu")
    (batch,) = samples.batches([[0]])
    frames = [int(name.split("/")[-1].removesuffix(".png")) for name in batch.sources[0].split(", ")]
    assert frames == list(range(frames[0], frames[0] + 6))
    order = [frames[k] for k in (3, 1, 2, 4, 5)]
    c2w = torch.from_numpy(layouts.truth(HELD_OUT).c2w).float()
    expected = torch.linalg.inv(c2w[frames[0]]) @ c2w[order]
    torch.testing.assert_close(batch.c2w[0], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(batch.world[0], torch.eye(4), atol=1e-6, rtol=0)
    scores = Scoring.of(made).unmoved_keys(batch)
    assert 0 < float(scores["register_error"]) < 0.5


def test_every_image_is_shown_and_no_ray(data: Path) -> None:
    made = recipe({"bedlam": Source(modality=(0.0, 1.0, 0.0))}, sampling="clip")
    (batch,) = DiskSamples("bedlam", made, data, "cpu").batches([range(5)])
    assert batch.metric.all()
    assert batch.seen.all()
    assert not batch.rays.any()


def test_answers_without_a_network_are_scored_on_each_set(data: Path) -> None:
    made = recipe({name: Source() for name in ("bedlam", "mapfree")})
    validation = Validation(made, {name: DiskSamples(name, made, data, "cpu") for name in ("bedlam", "mapfree")})
    (batch,) = validation.sources["bedlam"].batches([range(5)])
    rays = slopes(batch).mean(0)
    found = validation.baselines(torch.cat([rays, torch.ones(32, 32, 1)], -1))
    assert list(found) == [MEAN, CONSTANT]
    for score in ("error", "abs_rel", "inlier"):
        assert found[MEAN][f"bedlam_{score}"] == pytest.approx(found[CONSTANT][f"bedlam_{score}"], abs=1e-5)
    depth, valid = batch.depth[:, 0], batch.valid[:, 0]
    off = [((d - d[v].median()).abs() / d)[v].mean() for d, v in zip(depth, valid, strict=True)]
    assert found[CONSTANT]["bedlam_abs_rel"] == pytest.approx(float(sum(off)) / 5, rel=1e-4)
    assert validation.covered_by(found)
    assert not Validation(made, validation.sources | {"spring": validation.sources["bedlam"]}).covered_by(found)


def test_standing_pictures_are_answered_upright(tmp_path: Path) -> None:
    clip = layouts.truth(HELD_OUT)
    turned = layouts.Truth(
        clip.images.transpose(0, 2, 1, 3), clip.depth.transpose(0, 2, 1), clip.c2w, clip.K[[1, 0, 2]][:, [1, 0, 2]]
    )
    layouts.folders(tmp_path / "bedlam" / "test", turned)
    made = recipe({"bedlam": Source()}, size=layouts.SIZE)
    made = replace(made, resolution=replace(made.resolution, portrait=True))
    (batch,) = DiskSamples("bedlam", made, tmp_path, "cpu").batches([range(2)])
    assert batch.turned.all()
    v, u = np.mgrid[: layouts.SIZE[1], : layouts.SIZE[0]]
    lying = np.stack([(u - clip.K[0, 2]) / clip.K[0, 0], (v - clip.K[1, 2]) / clip.K[1, 1]], -1)
    for found in slopes(batch):
        torch.testing.assert_close(found, torch.from_numpy(lying).float(), atol=0.02, rtol=0)
    flat = replace(batch, depth=torch.full_like(batch.depth, 2.0), valid=torch.ones_like(batch.valid))
    answer = Scoring.of(made).constant_depth(slopes(batch)[0], flat)
    assert answer["error"].max() < 1e-5


def test_sets_without_samples_to_score_are_named_and_left_out(data: Path, tmp_path: Path) -> None:
    names = ("bedlam", "spring", "re10k")
    made, said = recipe({name: Source() for name in names}), list[str]()
    opened = {name: Photographs(name, made, data) for name in names}
    found = held_out(made, opened, data, "cpu", said.append)
    assert list(found) == ["bedlam"]
    assert said[0].startswith("no validation on spring: spring has no test split")
    assert said[1].startswith("no validation on re10k: its samples are camera-only")
    layouts.write("co3d", tmp_path / "co3d")  # lists one sequence for both
    both = recipe({"co3d": Source()})
    with pytest.raises(ThreerError, match=r"apple/1_2_3 is both held out and trained on"):
        DiskSamples("co3d", both, tmp_path, "cpu", ["apple/1_2_3"])
    assert not held_out(both, {"co3d": Photographs("co3d", both, tmp_path)}, tmp_path, "cpu", said.append)
    assert "both held out and trained on" in said[-1]


def test_a_run_on_sets_scores_each_of_them(data: Path, tmp_path: Path) -> None:
    made = recipe({name: Source() for name in ("bedlam", "mapfree", "spring")}, samples=3)
    text = io.StringIO()
    console = Console(file=text, width=200)
    folder = tmp_path / "run"
    trainer = Trainer(made, folder, Options(steps=2, data=data), console)
    trainer.run()
    with (folder / "log.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    assert last["step"] == "2"
    scored = ("error", "abs_rel", "inlier", "window_error", "alone_error")
    columns = [name for name in last if name.startswith("val_")]
    assert columns == [f"val_{source}_{score}" for source in ("bedlam", "mapfree") for score in scored]
    assert all(0 < float(last[name]) < 10 for name in columns)
    said = text.getvalue()
    assert said.count("no validation on spring: spring has no test split") == 1
    assert f"{CONSTANT}: bedlam: error " in said
    card = (folder / "weights" / "README.md").read_text()
    for source in ("bedlam", "mapfree"):
        assert f"3 samples of 2 views from held-out scenes of {source}" in card
        assert f"{source}_error" in card, "the course of the training"
    row = next(line for line in card.splitlines() if line.startswith("| pairs |"))
    assert f"{float(last['val_bedlam_error']):.3f}" in row
    assert card.count(f"| {CONSTANT} |") == 2
    assert MEAN not in card, "there is none where nothing is generated"
    assert sorted(p.name for p in (folder / "pictures").iterdir())[-2:] == [
        "0000002-bedlam.png",
        "0000002-mapfree.png",
    ]
    Trainer(made, folder, Options(steps=3, data=data), console)
    assert text.getvalue().count(f"{CONSTANT}: bedlam: error ") == 1, "a run that goes on knows them"
    fewer = replace(made, validation=replace(made.validation, samples=2))
    Trainer(fewer, folder, Options(steps=3, data=data), console)
    assert text.getvalue().count(f"{CONSTANT}: bedlam: error ") == 2, "those of other samples do not count"


def test_one_set_has_plain_columns_and_none_none(data: Path, tmp_path: Path) -> None:
    for name, expected in (("bedlam", 5), ("spring", 0)):
        made = recipe({name: Source()}, samples=2)
        Trainer(made, tmp_path / name, Options(steps=1, data=data)).run()
        with (tmp_path / name / "log.csv").open() as file:
            columns = next(csv.reader(file))
        assert len([c for c in columns if c.startswith("val_")]) == expected
        assert ("val_error" in columns) == bool(expected)
        card = (tmp_path / name / "weights" / "README.md").read_text()
        assert ("Scores on 2 samples" in card) == bool(expected)
        assert json.loads((tmp_path / name / "weights" / "config.json").read_text())


def test_pairs_are_validated_on_as_pairs() -> None:
    with pytest.raises(ThreerError, match=r"pairs have validation.views 2, got 3"):
        tiny_recipe(PAIRS | {"validated": "3"})
    for validated in ("0", "-1"):
        with pytest.raises(ThreerError, match="views not below 1"):
            tiny_recipe(WINDOWS | {"validated": validated})
    with pytest.raises(ThreerError, match=r"registration needs validation.views of 2 or more"):
        tiny_recipe(WINDOWS | {"validated": "1"})
