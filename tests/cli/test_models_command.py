"""`threer models`: what is listed and told, what is refused, and downloads without a network."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from golden_cases import load_case
from threer.cli import main
from threer.models import CUT3R, DUSt3R, DUSt3RConfig, load_model, registry, save_checkpoint
from threer.models.files import read_json
from threer.types import Checkpoint

SIZES = {"enc_dim": 16, "enc_depth": 1, "enc_heads": 2, "dec_dim": 16, "dec_depth": 2, "dec_heads": 2}


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with one checkpoint, `dust3r-tiny`, and a disk without any other."""
    torch.manual_seed(0)
    card = Checkpoint("dust3r-tiny", "dust3r", (), "Apache-2.0", metric=True, description="made in a test")
    folder = tmp_path / "package" / "dust3r-tiny"
    save_checkpoint(DUSt3R(DUSt3RConfig(image_size=32, **SIZES)), folder, card)
    monkeypatch.setattr(registry, "packaged_folder", lambda: folder.parent)
    monkeypatch.setattr(registry, "_in_cache", lambda repository: None)
    monkeypatch.delenv("THREER_WEIGHTS", raising=False)
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hub that holds one small published network, and caches it as the real one does."""
    case = load_case("dust3r_linear_square")
    snapshot, blobs = tmp_path / "cache" / "snapshot", tmp_path / "cache" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (snapshot / "config.json").write_text(json.dumps(case.config["constructor"]))
    save_file(case.weights, blobs / "new")
    digest = hashlib.sha256((blobs / "new").read_bytes()).hexdigest()
    (blobs / "new").rename(blobs / digest)
    (snapshot / "model.safetensors").symlink_to(blobs / digest)

    def download(repository: str, allow_patterns: list[str]) -> str:
        assert repository == "naver/DUSt3R_ViTLarge_BaseDecoder_224_linear"
        assert "*.pth" not in allow_patterns
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    return snapshot


def one_line_error(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err.strip()
    assert error.startswith("threer: ")
    assert "\n" not in error
    return error


def test_list_says_what_is_here_and_how_to_get_the_rest(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cut3r_224_linear_4.pth").write_bytes(b"x" * 2_500_000)
    monkeypatch.setenv("THREER_WEIGHTS", str(tmp_path))
    assert main(["models", "list"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines.keys() == {"NAME", "dust3r-tiny", *registry.PUBLISHED}
    assert lines["dust3r-tiny"].endswith("packaged")
    assert "not here: threer models pull fast3r" in lines["fast3r"]
    assert "FAIR Noncommercial" in lines["fast3r"]
    assert lines["cut3r"].endswith("from its authors, by hand")
    assert "2 MB" in lines["cut3r-224-linear"]
    assert str(tmp_path / "cut3r_224_linear_4.pth") in lines["cut3r-224-linear"]
    assert main(["models", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["dust3r-tiny"]["size"] == sum(f.stat().st_size for f in shelf.iterdir())
    assert [name for name, row in rows.items() if row["on_disk"]] == ["dust3r-tiny", "cut3r-224-linear"]


def test_info_reads_no_weights_of_our_own_format(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parameters = sum(p.numel() for p in load_model("dust3r-tiny").parameters())
    (shelf / "model.safetensors").write_bytes(b"")
    for weights in ("dust3r-tiny", str(shelf)):
        assert main(["models", "info", weights, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["licence"], told["metric"], told["parameters"]) == ("Apache-2.0", True, parameters)
        assert told["settings"]["enc_dim"] == 16
    assert main(["models", "info", "fast3r"]) == 0
    assert "FAIR Noncommercial" in capsys.readouterr().out
    assert main(["models", "info", "nonsense"]) == 1
    assert "unknown weights 'nonsense'" in one_line_error(capsys)


def test_info_of_a_published_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = load_case("dust3r_linear_square")
    torch.save({"model": case.weights}, tmp_path / "net.pth")
    assert main(["models", "info", str(tmp_path / "net.pth")]) == 0
    told = capsys.readouterr().out
    assert "unknown: ask whoever made the file" in told
    assert "enc_dim" in told


def test_check_names_the_first_thing_wrong(shelf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "check", str(shelf)]) == 0
    assert "complete and finite" in capsys.readouterr().out
    case = load_case("dust3r_linear_square")
    path = tmp_path / "net.safetensors"
    name = next(n for n in case.weights if n.startswith("enc_blocks.0") and n.endswith("weight"))
    broken = {
        "missing": ({n: t for n, t in case.weights.items() if n != name}, "enc_blocks.0|encoder.blocks.0"),
        "unknown": (case.weights | {"strange.weight": torch.zeros(2)}, "strange.weight"),
        "not finite": (case.weights | {name: torch.full_like(case.weights[name], torch.nan)}, "not finite"),
    }
    for state, words in broken.values():
        save_file({n: t.contiguous() for n, t in state.items()}, path)
        assert main(["models", "check", str(path)]) == 1
        error = one_line_error(capsys)
        assert str(path) in error
        assert any(word in error for word in words.split("|")), error
    path.write_bytes(path.read_bytes()[:-100])
    assert main(["models", "check", str(path)]) == 1
    assert "truncated" in one_line_error(capsys)


def test_convert_keeps_the_network_and_its_licence(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = load_case("cut3r_linear_eps")
    official = tmp_path / "cut3r_224_linear_4.pth"
    call = "Model(dec_num_heads=4, enc_num_heads=4, state_dec_num_heads=8)"
    torch.save({"model": case.weights, "args": argparse.Namespace(model=call)}, official)
    monkeypatch.setenv("THREER_WEIGHTS", str(tmp_path))
    out = tmp_path / "named"
    assert main(["models", "convert", "cut3r-224-linear", str(out)]) == 0
    assert "CC-BY-NC-SA-4.0" in capsys.readouterr().out
    converted, original = load_model(out), load_model(official)
    assert isinstance(converted, CUT3R)
    assert converted.checkpoint.metric
    assert read_json(out / "config.json")["card"]["licence"] == "CC-BY-NC-SA-4.0"
    for name, tensor in converted.state_dict().items():
        assert torch.equal(tensor, original.state_dict()[name].half().float()), name
    assert load_file(out / "model.safetensors")["encoder_norm.weight"].dtype == torch.float16

    assert main(["models", "convert", str(official), str(tmp_path / "file"), "--licence", "MIT", "--metric"]) == 0
    card = load_model(tmp_path / "file").checkpoint
    assert (card.name, card.licence, card.metric) == ("file", "MIT", True)
    assert main(["models", "convert", str(official), str(out)]) == 1
    assert "is not an empty folder" in capsys.readouterr().err
    assert main(["models", "convert", "cut3r-224-linear", str(tmp_path / "c"), "--licence", "MIT"]) == 1
    assert "is under CC-BY-NC-SA-4.0, not MIT" in capsys.readouterr().err


def test_pull_brings_and_verifies(shelf: Path, hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "pull", "dust3r-224-linear"]) == 0
    assert str(hub) in capsys.readouterr().out
    assert isinstance(load_model(hub), DUSt3R)
    blob = (hub / "model.safetensors").resolve()
    blob.write_bytes(blob.read_bytes()[:-1] + b"!")
    assert main(["models", "pull", "dust3r-224-linear"]) == 1
    error = one_line_error(capsys)
    assert "SHA-256 differs" in error
    assert str(blob) in error


def test_pull_holds_files_against_known_checksums(
    shelf: Path, hub: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "dust3r-224-linear"
    card = registry.PUBLISHED[name]
    wrong = Checkpoint(name, card.family, card.files, card.licence, sha256={"model.safetensors": "0" * 64})
    monkeypatch.setitem(registry.PUBLISHED, name, wrong)
    assert main(["models", "pull", name]) == 1
    assert "SHA-256 differs" in one_line_error(capsys)


def test_pull_takes_what_is_here(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "pull", "dust3r-tiny"]) == 0
    assert str(shelf) in capsys.readouterr().out
    mine = tmp_path / "DUSt3R_ViTLarge_BaseDecoder_512_dpt.pth"
    mine.write_bytes(b"")
    monkeypatch.setenv("THREER_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.snapshot_download", None)
    assert main(["models", "pull", "dust3r"]) == 0
    assert str(mine) in capsys.readouterr().out


@pytest.mark.parametrize(
    "left", [[], ["model.safetensors.index.json"], ["model.safetensors.index.json", "one.safetensors"]]
)
def test_a_download_cut_off_is_no_success(
    left: list[str], shelf: Path, hub: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a network the Hub's client gives back the folder as far as it is there."""
    (hub / "model.safetensors").unlink()
    for name in left:
        (hub / name).write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}))
    assert main(["models", "pull", "dust3r-224-linear"]) == 1
    assert "is on this disk only in part" in one_line_error(capsys)


@pytest.mark.parametrize(
    ("name", "offline", "words"),
    [
        ("dust3r", True, "offline mode (HF_HUB_OFFLINE) forbids downloading it"),
        ("dust3r", False, "naver/DUSt3R_ViTLarge_BaseDecoder_512_dpt could not be downloaded: no route"),
        ("cut3r", False, "not on the Hub: get cut3r_512_dpt_4_64.pth"),
        ("nothing", False, "unknown weights 'nothing'; valid: dust3r-tiny"),
    ],
)
def test_what_cannot_be_pulled(
    name: str,
    offline: bool,
    words: str,
    shelf: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def unreachable(repository: str, **_: object) -> str:
        raise ConnectionError("no route\nto the Hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    assert main(["models", "pull", name]) == 1
    assert words in one_line_error(capsys)


def test_what_cannot_be_written_is_told(shelf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    assert main(["models", "convert", "dust3r-tiny", str(tmp_path / "file" / "out")]) == 1
    error = one_line_error(capsys)
    assert f"cannot write {tmp_path / 'file' / 'out'}" in error
    assert "choose another place" in error
