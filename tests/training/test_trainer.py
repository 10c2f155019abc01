"""Whole runs, small enough to watch: what they leave behind, how they end, how they begin."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from threer.errors import ThreerError
from threer.models.checkpoints import load_checkpoint
from threer.models.files import read_weights
from threer.models.slam3r import SLAM3R
from threer.training import export as exporting
from threer.training.command import train
from threer.training.export import package
from threer.training.networks import build
from threer.training.recipes.recipe import Initialisation
from threer.training.scores import load_mean_pointmap
from threer.training.start import find_weights, start
from threer.training.trainer import Options, Trainer
from tiny_training import PAIRS, WINDOWS, tiny_recipe

RECIPE = tiny_recipe(PAIRS, "pairs")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results") / "pairs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "SHARD", 40_000)
        Trainer(RECIPE, folder, Options(steps=4)).run()
    return folder


def test_a_run_leaves_log_pictures_state_and_weights(finished: Path) -> None:
    with (finished / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [2, 4]
    assert float(rows[-1]["samples"]) == 16
    for name in ("loss", "error", "val_error", "val_abs_rel", "val_alone_error"):
        assert np.isfinite(float(rows[-1][name])), name
    pictures = sorted(p.name for p in (finished / "pictures").iterdir())
    assert pictures == ["0000000.png", "0000002.png", "0000004.png"]
    with Image.open(finished / "pictures" / "0000004.png") as picture:
        sheet = np.asarray(picture)
    columns = [sheet[:90, k * 114 + 10 : k * 114 + 90] for k in range(4)]
    assert all(column.std() > 5 for column in columns[:3]), "image, depth and true depth show something"
    assert not np.array_equal(columns[1], columns[2])
    assert sorted(p.name for p in finished.iterdir()) == ["curves", "log.csv", "pictures", "state.pt", "weights"]
    (curves,) = (finished / "curves").iterdir()
    assert b"val_abs_rel" in curves.read_bytes()


def test_weights_come_in_small_files_with_a_card(finished: Path) -> None:
    weights = finished / "weights"
    files = list(weights.glob("*.safetensors"))
    assert len(files) > 2
    largest = max(t.numel() * 2 for t in read_weights(weights).tensors.values())
    assert all(f.stat().st_size <= max(40_000, largest + 2000) for f in files)
    model = load_checkpoint(weights)
    state = torch.load(finished / "state.pt", weights_only=True)
    names = [name for name, _ in model.named_parameters()]
    for name, mean in zip(names, state["ema"]["values"], strict=True):
        torch.testing.assert_close(model.get_parameter(name).float(), mean, atol=2e-3, rtol=2e-3)
    mean = load_mean_pointmap(weights)
    assert mean.shape == (32, 32, 3)
    assert mean.norm(dim=-1).mean() == pytest.approx(1, abs=0.15)
    card = (weights / "README.md").read_text()
    assert "4 steps, 16 samples" in card
    assert "plain clips of 5 frames in rooms of `threer.data.synthetic` with drawn textures, field of view" in card
    assert "* **Started from**: random weights." in card
    assert "(seeds 1000000000 to 1000000001)" in card
    for row in ("| pairs |", "| mean training pointmap |", "| constant depth |"):
        assert row in card
    assert "nan" not in card
    damaged = files[0].read_bytes()
    try:
        files[0].write_bytes(damaged[:-1] + bytes([damaged[-1] ^ 1]))
        with pytest.raises(ThreerError, match=rf"{files[0].name} is not the file"):
            load_checkpoint(weights)
    finally:
        files[0].write_bytes(damaged)


def test_a_result_is_packaged_with_its_encoder_apart(finished: Path, tmp_path: Path) -> None:
    package(finished, RECIPE, tmp_path / "shipped")
    names = sorted(p.name for p in (tmp_path / "shipped").iterdir())
    assert names == ["README.md", "config.json", "encoder.safetensors", "mean_pointmap.npy", "model.safetensors"]
    shipped, result = load_checkpoint(tmp_path / "shipped"), load_checkpoint(finished / "weights")
    for a, b in zip(shipped.parameters(), result.parameters(), strict=True):
        assert torch.equal(a, b)
    assert json.loads((tmp_path / "shipped" / "config.json").read_text())["card"]["name"] == "shipped"
    assert (tmp_path / "shipped" / "README.md").read_text().startswith("# shipped\n")
    with pytest.raises(ThreerError, match="holds no weights"):
        package(tmp_path, RECIPE, tmp_path / "again")


def test_half_precision_weights_alone_start_another_run(finished: Path, tmp_path: Path) -> None:
    again = Trainer(RECIPE, tmp_path / "again", Options(steps=4, init=str(finished)))
    assert again.began == "pairs"
    assert again.progress.step == 0
    tensors = read_weights(finished / "weights").tensors
    for name, parameter in again.network.named_parameters():
        assert torch.equal(parameter.detach().half(), tensors[name]), name


def test_a_recipe_starts_from_the_result_of_another(finished: Path, tmp_path: Path) -> None:
    windows = replace(tiny_recipe(WINDOWS, "windows"), init=Initialisation("pairs", "dust3r"))
    model = build(windows)
    assert isinstance(model, SLAM3R)
    started = start(model, windows, finished.parent, None)
    assert started is not None
    assert "i2p.encoder_norm.weight" in started[0].taken
    assert started[1] == finished / "weights"
    assert find_weights("slam3r-mini", tmp_path).name == "slam3r-mini"
    with pytest.raises(ThreerError, match=r"no weights 'pairs' to start from: give a path; or .*--init none"):
        start(model, windows, tmp_path, None)
    with pytest.raises(ThreerError, match=r"train it first, into .*dust3r-mini-cpu"):
        find_weights("dust3r-mini-cpu", tmp_path)
    assert start(model, windows, tmp_path, "none") is None


def test_a_run_of_minutes_ends_in_time_and_a_session_before(tmp_path: Path) -> None:
    before = time.monotonic()
    first = Trainer(RECIPE, tmp_path, Options(minutes=5.0, session=0.2))
    first.run()
    assert time.monotonic() - before < 60
    done = first.progress
    assert 0 < done.done < 1
    assert load_checkpoint(tmp_path / "weights")
    second = Trainer(RECIPE, tmp_path, Options(minutes=(done.seconds + 12) / 60))
    assert second.progress.step == done.step
    second.run()
    assert second.progress.done == 1
    assert second.progress.step > done.step
    assert second.progress.seconds < done.seconds + 16


def test_a_signal_ends_a_run_with_state_and_weights(tmp_path: Path) -> None:
    trainer = Trainer(RECIPE, tmp_path, Options(steps=100_000))
    timer = threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    progress = trainer.run()
    assert 0 < progress.step < 100_000
    assert torch.load(tmp_path / "state.pt", weights_only=True)["progress"]["step"] == progress.step
    assert load_checkpoint(tmp_path / "weights")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_steps_without_finite_gradients_are_skipped_and_too_many_end_the_run(tmp_path: Path) -> None:
    trainer = Trainer(RECIPE, tmp_path, Options(steps=200))
    batches = trainer.feed.batches(0)
    trainer.step(batches)
    before = {name: p.detach().clone() for name, p in trainer.network.named_parameters()}
    broken = (replace(batch, images=batch.images * torch.nan) for batch in batches)
    trainer.step(broken)
    assert trainer.progress.skipped == 1
    for name, parameter in trainer.network.named_parameters():
        assert torch.equal(parameter.detach(), before[name]), name
    for _ in range(19):
        trainer.step(broken)
    with pytest.raises(ThreerError, match="diverged: 21 steps"):
        trainer.step(broken)


def test_folders_of_other_runs_and_lengths_of_nothing_are_refused(finished: Path, tmp_path: Path) -> None:
    other = replace(RECIPE, network=replace(RECIPE.network, enc_dim=64))
    with pytest.raises(ThreerError, match="other sizes"):
        Trainer(other, finished, Options(steps=4))
    with pytest.raises(ThreerError, match="--steps must be above 0"):
        Trainer(RECIPE, tmp_path, Options(steps=0))
    (tmp_path / "state.pt").write_bytes(b"PK nothing")
    with pytest.raises(ThreerError, match=r"cannot continue from .*state\.pt"):
        Trainer(RECIPE, tmp_path, Options(steps=4))
    with pytest.raises(ThreerError, match="no CUDA device"):
        Trainer(RECIPE, tmp_path / "cuda", Options(device="cuda"))
    with pytest.raises(ThreerError, match=r"needs NAME=VALUE"):
        train("dust3r-mini", tmp_path, Options(), settings=["batch.per_device"])
    with pytest.raises(ThreerError, match=r"has no setting 'per_devise'"):
        train("dust3r-mini", tmp_path, Options(), settings=["batch.per_devise=2"])


BLOCKED = """
import sys
import lightning.fabric  # its own optional imports are not ours
class Missing:
    names = "tyro av viser scipy cv2 trimesh huggingface_hub filelock pycolmap evo".split()
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(name)
for name in list(sys.modules):
    if name.split(".")[0] in Missing.names:
        del sys.modules[name]
sys.meta_path.insert(0, Missing())
sys.argv = ["training", *sys.argv[1:]]
import runpy
runpy.run_module("threer.training", run_name="__main__")
"""
SMALL = (
    "network.image_size=32 resolution.sizes=[[32,32]] network.enc_dim=48 network.enc_depth=1 network.dec_dim=32 "
    "network.dec_depth=2 batch.per_device=2 validation.samples=2 synthetic.frames=4 network.enc_heads=3 "
    'synthetic.style="plain"'
)


def test_the_dry_run_needs_little_installed_and_tells_the_speed(tmp_path: Path) -> None:
    settings = [part for change in SMALL.split() for part in ("--set", change)]
    command = [
        sys.executable,
        "-c",
        BLOCKED,
        "dust3r-mini",
        str(tmp_path),
        "--dry-run",
        "--device",
        "cpu",
        *settings,
    ]
    environment: dict[str, Any] = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    for stage in (
        "check",
        "rendering",
        "validation",
        "saving",
        "export",
        "samples",
        "share of the device's matrix",
    ):
        assert stage in done.stdout, stage
    assert "projected for 25 minutes" in done.stdout
    assert (tmp_path / "dry-run" / "weights" / "config.json").is_file()
