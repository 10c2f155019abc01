"""Checkpoints that share one file of encoder weights: written once, checked, and missed when it is not there."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from threer.errors import CheckpointError
from threer.models.checkpoints import Model, load_checkpoint, save_checkpoint
from threer.models.dust3r import DUSt3R, DUSt3RConfig
from threer.models.encoders import encoder_of
from threer.models.files import read_safetensors, read_weights
from threer.models.slam3r import SLAM3R, SLAM3RConfig
from threer.training.export import package
from threer.training.initialise import initialise, read_state
from threer.training.options import Options
from threer.training.recipes.recipe import Initialisation, Recipe
from threer.training.trainer import Trainer
from threer.types import Checkpoint
from tiny_training import PAIRS, WINDOWS, tiny_recipe

SIZES = {
    "image_size": 32,
    "enc_dim": 32,
    "enc_depth": 1,
    "enc_heads": 2,
    "dec_dim": 32,
    "dec_depth": 1,
    "dec_heads": 2,
}
CARD = Checkpoint("tiny", "dust3r", (), "Apache-2.0")
FILE = "encoder.safetensors"


@pytest.fixture(scope="module")
def family() -> tuple[DUSt3R, SLAM3R]:
    """A pair network, and a SLAM3R that begins with its encoder; values as float16 has them."""
    torch.manual_seed(0)
    pairs = DUSt3R(DUSt3RConfig(**SIZES)).half().float()
    windows = SLAM3R.from_config(SLAM3RConfig(**SIZES)).half().float()
    initialise(windows, "slam3r", pairs.state_dict(), Initialisation("", "dust3r"))
    return pairs, windows


@pytest.fixture
def folder(family: tuple[DUSt3R, SLAM3R], tmp_path: Path) -> Path:
    pairs, windows = family
    save_checkpoint(pairs, tmp_path / "pairs", CARD, encoder=FILE)
    save_checkpoint(windows, tmp_path / "windows", CARD, encoder=f"../pairs/{FILE}")
    return tmp_path


def same(a: Model, b: Model) -> bool:
    x, y = a.state_dict(), b.state_dict()
    return x.keys() == y.keys() and all(torch.equal(x[name], y[name]) for name in x)


def test_the_encoder_is_stored_once_and_read_by_both(family: tuple[DUSt3R, SLAM3R], folder: Path) -> None:
    for model, name in zip(family, ("pairs", "windows"), strict=True):
        assert same(load_checkpoint(folder / name), model)
        own = read_safetensors(folder / name / "model.safetensors")
        assert own
        assert not any(".encoder." in f".{tensor}" for tensor in own)
        assert read_weights(folder / name).tensors.keys() == model.state_dict().keys()
    assert read_safetensors(folder / "pairs" / FILE).keys() == encoder_of(family[0].state_dict(), "").keys()
    assert not (folder / "windows" / FILE).exists()


def test_what_shares_an_encoder_says_when_it_is_gone_or_another(
    family: tuple[DUSt3R, SLAM3R], folder: Path
) -> None:
    shutil.copytree(folder / "windows", folder / "elsewhere" / "windows")
    with pytest.raises(CheckpointError, match=r"shares the encoder in .*encoder.safetensors, which is not there"):
        load_checkpoint(folder / "elsewhere" / "windows")
    torch.manual_seed(1)
    other = DUSt3R(DUSt3RConfig(**SIZES))
    with pytest.raises(CheckpointError, match="holds another encoder"):
        save_checkpoint(other, folder / "others", CARD, encoder=f"../pairs/{FILE}")
    (folder / "pairs" / FILE).unlink()
    save_checkpoint(other, folder / "pairs", CARD, encoder=FILE)
    with pytest.raises(CheckpointError, match="SHA-256 differs"):
        load_checkpoint(folder / "windows")
    with pytest.raises(CheckpointError, match="SHA-256 differs"):
        read_state(folder / "windows", "slam3r")
    settings = folder / "windows" / "config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"encoder": "pairs"}))
    with pytest.raises(CheckpointError, match='"encoder" must name a file and a prefix'):
        load_checkpoint(folder / "windows")


def test_a_frozen_encoder_is_shared_when_results_are_packaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = named(tiny_recipe(PAIRS), "pairs")
    Trainer(pairs, tmp_path / "pairs", Options(steps=1)).run()
    package(tmp_path / "pairs", pairs, tmp_path / "shipped" / "pairs")
    start = Initialisation(str(tmp_path / "pairs"), "dust3r")
    frozen = ("i2p.encoder.*", "i2p.encoder_norm.*")
    for name, freeze in (("frozen", frozen), ("free", ())):
        recipe = replace(named(tiny_recipe(WINDOWS), name), init=start, freeze=freeze)
        Trainer(recipe, tmp_path / name, Options(steps=3)).run()
        (tmp_path / "shipped" / name).mkdir()
        monkeypatch.chdir(tmp_path / "shipped" / name)
        package(tmp_path / name, recipe, Path())
        assert Path("README.md").read_text().startswith(f"# {name}\n")
        assert same(load_checkpoint(tmp_path / "shipped" / name), load_checkpoint(tmp_path / name / "weights"))
    settings = [tmp_path / "shipped" / name / "config.json" for name in ("frozen", "free")]
    shared, alone = (json.loads(path.read_text()) for path in settings)
    assert shared["encoder"] == {"file": f"../pairs/{FILE}", "prefix": "i2p."}
    assert "encoder" not in alone


def named(recipe: Recipe, name: str) -> Recipe:
    return replace(recipe, name=name)
