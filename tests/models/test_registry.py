"""Weights by name, and our own format."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from golden_cases import load_case
from threer.errors import CheckpointError, ThreerError
from threer.models import (
    CUT3R,
    SLAM3R,
    CUT3RConfig,
    DUSt3R,
    DUSt3RConfig,
    Fast3R,
    Fast3RConfig,
    SLAM3RConfig,
    load_model,
    registry,
    save_checkpoint,
)
from threer.models.inspect import describe
from threer.models.unpickle import read_pickle
from threer.nn.dpt import DPTDims
from threer.types import Checkpoint

CARD = Checkpoint("tiny", "slam3r", (), "Apache-2.0", metric=True, description="made in a test")
SIZES = {
    "image_size": 32,
    "enc_dim": 16,
    "enc_depth": 1,
    "enc_heads": 2,
    "dec_dim": 16,
    "dec_depth": 2,
    "dec_heads": 2,
}


@pytest.fixture
def tiny() -> SLAM3R:
    torch.manual_seed(0)
    return SLAM3R.from_config(SLAM3RConfig(**SIZES, ray_prior=0.6, absolute_positions=True)).eval()


@pytest.fixture
def shelf(tiny: SLAM3R, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with one checkpoint, `slam3r-mini`, and a disk without any other."""
    save_checkpoint(tiny, tmp_path / "weights" / "slam3r-mini", CARD)
    monkeypatch.setattr(registry, "packaged_folder", lambda: tmp_path / "weights")
    monkeypatch.setattr(registry, "_in_cache", lambda repository: None)
    monkeypatch.delenv("THREER_WEIGHTS", raising=False)
    return tmp_path / "weights" / "slam3r-mini"


def test_round_trip(tiny: SLAM3R, tmp_path: Path) -> None:
    save_checkpoint(tiny, tmp_path / "tiny", CARD)
    loaded = load_model(tmp_path / "tiny")
    assert isinstance(loaded, SLAM3R)
    assert loaded.i2p.config == tiny.i2p.config
    assert loaded.input == tiny.input
    assert (loaded.checkpoint.name, loaded.checkpoint.licence, loaded.checkpoint.metric) == (
        "tiny",
        "Apache-2.0",
        True,
    )
    assert not loaded.training
    tiny.half().float()  # what float16 keeps
    state = loaded.state_dict()
    assert not any("l2w.encoder." in name for name in state), "the encoder is stored once"
    for name, tensor in tiny.state_dict().items():
        assert torch.equal(state[name], tensor), name
    window = torch.rand(1, 3, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded.local(window)[1].points.xyz, tiny.local(window)[1].points.xyz)


def test_round_trip_of_a_dense_head(tmp_path: Path) -> None:
    model = DUSt3R(DUSt3RConfig(**SIZES, head="dpt", dpt=DPTDims(8, 4, (4, 4, 4, 4))))
    save_checkpoint(model, tmp_path, CARD)
    loaded = load_model(tmp_path)
    assert isinstance(loaded, DUSt3R)
    assert loaded.config == model.config


def test_round_trip_of_the_other_families(tmp_path: Path) -> None:
    narrow = {"head": "dpt", "dpt": DPTDims(8, 4, (4, 4, 4, 4))}
    cut3r = CUT3R(CUT3RConfig(**SIZES, state_size=6, state_heads=4, memory_size=3, ray_heads=4, ray_prior=0.5))
    fast3r = Fast3R(Fast3RConfig(**SIZES | narrow, random_ids=False, local_head=False))
    for model in (cut3r, fast3r):
        save_checkpoint(model, tmp_path / model.checkpoint.family, CARD)
        loaded = load_model(tmp_path / model.checkpoint.family)
        assert type(loaded) is type(model)
        assert loaded.config == model.config
        assert loaded.state_dict().keys() == model.state_dict().keys()
        with torch.no_grad():
            assert torch.isfinite(loaded(torch.rand(1, 2, 3, 32, 32))[1].points.xyz).all()


def test_changed_or_broken_files_are_noticed(tiny: SLAM3R, tmp_path: Path) -> None:
    save_checkpoint(tiny, tmp_path, CARD)
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="SHA-256 differs"):
        load_model(tmp_path)
    weights.write_bytes(good[:-10])
    with pytest.raises(CheckpointError, match="truncated"):
        load_model(tmp_path)
    weights.write_bytes(good)
    described = json.loads(config.read_text())
    config.write_text(json.dumps(described | {"config": described["config"] | {"dec_dept": 3}}))
    with pytest.raises(CheckpointError, match="no setting 'dec_dept'; did you mean dec_depth"):
        load_model(tmp_path)
    config.write_text(json.dumps(described | {"threer": 2}))
    with pytest.raises(CheckpointError, match="format 2, this version reads 1"):
        load_model(tmp_path)


def test_what_a_description_lacks_or_gets_wrong_is_said(tiny: SLAM3R, tmp_path: Path) -> None:
    save_checkpoint(tiny, tmp_path, CARD)
    config = tmp_path / "config.json"
    good = json.loads(config.read_text())
    for changes, message in (
        ({"config": None}, r'config\.json holds no settings under "config"; copy it again'),
        (
            {"config": good["config"] | {"enc_dim": "x"}},
            r"config\.json: its settings make no network .*get it again",
        ),
        ({"config": good["config"] | {"dec_depth": -2.5}}, r"config\.json: "),
        ({"family": ["slam3r"]}, r"config\.json describes no checkpoint"),
        ({"sha256": "0"}, r"config\.json describes no checkpoint"),
    ):
        config.write_text(json.dumps(good | changes))
        for read in (load_model, lambda path: describe(str(path))):
            with pytest.raises(CheckpointError, match=message) as caught:
                read(tmp_path)
            assert "\n" not in str(caught.value)


def test_files_that_are_missing_or_forbidden_are_named(
    tiny: SLAM3R, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tiny, tmp_path, CARD)
    torch.save({}, tmp_path / "model.pth")
    opened, forbidden = Path.open, ""

    def refusing(path: Path, *args: Any, **options: Any) -> Any:
        if path.name == forbidden:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **options)

    monkeypatch.setattr(Path, "open", refusing)
    for forbidden in ("config.json", "model.safetensors", "model.pth"):
        given = tmp_path / "model.pth" if forbidden == "model.pth" else tmp_path
        with pytest.raises(CheckpointError, match=f"no permission to read .*{forbidden}; change the rights"):
            load_model(given)
    with pytest.raises(CheckpointError, match=r"no permission to read .*model\.pth"):
        read_pickle(tmp_path / "model.pth")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing; copy the weights again"):
        load_model(tmp_path)


def test_our_weights_without_their_description_hint_at_the_folder(tiny: SLAM3R, tmp_path: Path) -> None:
    save_checkpoint(tiny, tmp_path, CARD)
    hint = r"give the folder in which model\.safetensors and that config\.json lie together"
    with pytest.raises(CheckpointError, match=hint):
        load_model(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=hint):
        load_model(tmp_path)


def test_weights_that_do_not_fit_are_not_written(tiny: SLAM3R, tmp_path: Path) -> None:
    with torch.no_grad():
        tiny.i2p.bridge.weight[0, 0] = 1e6
    with pytest.raises(CheckpointError, match=r"i2p\.bridge\.weight does not fit into float16"):
        save_checkpoint(tiny, tmp_path / "out", CARD)
    assert not (tmp_path / "out").exists()


def test_name_falls_back_to_the_packaged_weights(shelf: Path) -> None:
    assert load_model("slam3r").checkpoint.name == "tiny"
    assert load_model("slam3r-mini").checkpoint.files == (str(shelf / "model.safetensors"),)
    assert registry.resolve("slam3r").packaged
    listed = registry.entries()
    assert listed["slam3r-mini"].paths == (shelf,)
    assert listed["slam3r"].paths == ()
    assert "dust3r" in listed


def test_published_weights_on_disk_come_first(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = load_case("slam3r_e2e_auto_reservoir")
    monkeypatch.setenv("THREER_WEIGHTS", str(tmp_path))
    for part in ("i2p", "l2w"):
        assert load_model("slam3r").checkpoint.name == "tiny", "both halves are needed"
        state = {k.removeprefix(f"{part}."): t for k, t in case.weights.items() if k.startswith(f"{part}.")}
        torch.save({"model": state}, tmp_path / f"slam3r_{part}.pth")
    model = load_model("slam3r")
    assert model.checkpoint == registry.PUBLISHED["slam3r"]
    assert "NC" in model.checkpoint.licence


def test_published_weights_in_the_hub_cache(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    case = load_case("dust3r_linear_square")
    commit = "0" * 40
    repository = tmp_path / "models--naver--DUSt3R_ViTLarge_BaseDecoder_224_linear"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    (snapshot / "config.json").write_text(json.dumps(case.config["constructor"]))
    save_file(case.weights, snapshot / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path))
    model = load_model("dust3r-224-linear")
    assert isinstance(model, DUSt3R)
    assert model.checkpoint.name == "dust3r-224-linear"
    (snapshot / "model.safetensors").unlink()
    shards = {"weight_map": {"one": "1.safetensors", "two": "2.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(shards))
    (snapshot / "1.safetensors").write_bytes(b"")
    assert not registry.entries()["dust3r-224-linear"].paths, "a download that was cut off is not there"
    (snapshot / "2.safetensors").write_bytes(b"")
    assert registry.entries()["dust3r-224-linear"].paths == (snapshot,)


def test_nothing_is_downloaded_unasked(shelf: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []

    def download(repository: str, **_: object) -> str:
        asked.append(repository)
        raise OSError("no network\nin this test")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    load_model("slam3r")
    with pytest.raises(
        CheckpointError, match=r"'dust3r' are not on this disk: dust3r@hub downloads them .*CC-BY-NC"
    ):
        load_model("dust3r")
    assert not asked
    with pytest.raises(CheckpointError, match=r"siyan824/slam3r_i2p could not be downloaded: no network$"):
        load_model("slam3r@hub")
    assert asked == ["siyan824/slam3r_i2p"]


def test_weights_that_are_not_on_the_hub_say_where_they_belong(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, problem in (("cut3r-224-linear", "not on this disk"), ("cut3r-224-linear@hub", "not on the Hub")):
        with pytest.raises(CheckpointError, match=rf"{problem}: get cut3r_224_linear_4\.pth \(CC-BY-NC-SA-4\.0\)"):
            load_model(name)
    with pytest.raises(CheckpointError, match=r"fast3r@hub downloads them .*FAIR Noncommercial"):
        load_model("fast3r")
    case = load_case("cut3r_linear_eps")
    call = "Model(dec_num_heads=4, enc_num_heads=4, state_dec_num_heads=8)"
    monkeypatch.setenv("THREER_WEIGHTS", str(tmp_path))
    torch.save({"model": case.weights, "args": argparse.Namespace(model=call)}, tmp_path / "cut3r_224_linear_4.pth")
    model = load_model("cut3r-224-linear")
    assert isinstance(model, CUT3R)
    assert model.checkpoint == registry.PUBLISHED["cut3r-224-linear"]
    assert model.checkpoint.metric


def test_devices_that_are_not_here_are_told(shelf: Path) -> None:
    with pytest.raises(ThreerError, match="unknown device 'abacus'; valid: auto, cpu"):
        load_model("slam3r", device="abacus")
    with pytest.raises(ThreerError, match="the device 'cuda:99' is not on this machine"):
        load_model("slam3r", device="cuda:99")


def test_unknown_names_list_the_known(shelf: Path) -> None:
    for name in ("", "slamr", "slam3r@home", "slam3r-mini@hub"):
        with pytest.raises(CheckpointError, match=f"unknown weights '{name}'; valid: slam3r-mini, slam3r, dust3r"):
            load_model(name)


def test_a_name_wins_over_a_folder_of_that_name(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slam3r").mkdir()
    assert load_model("slam3r").checkpoint.name == "tiny"
    with pytest.raises(CheckpointError, match="holds neither"):
        load_model("./slam3r")


def test_shapes_alone_are_made_without_drawing_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device torch would load its compiler to draw them: seconds at every start."""

    def drawn(*_: object, **__: object) -> None:
        raise AssertionError("values were drawn")

    monkeypatch.setattr("torch.nn.init.xavier_uniform_", drawn)
    monkeypatch.setattr("torch.nn.init.normal_", drawn)
    with torch.device("meta"):
        assert all(p.is_meta for p in SLAM3R.from_config(SLAM3RConfig(**SIZES)).parameters())
    with pytest.raises(AssertionError, match="values were drawn"):
        SLAM3R.from_config(SLAM3RConfig(**SIZES))
