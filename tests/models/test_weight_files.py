"""Published containers, and every way in which a file can be wrong."""

from __future__ import annotations

import argparse
import json
import math
import pickle
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from golden_cases import Case, load_case
from threer.errors import CheckpointError
from threer.models import CUT3R, DUSt3R, Fast3R, load_model
from threer.models.checkpoints import load_path, load_published
from threer.models.files import read_weights
from threer.models.unpickle import parse_constructor, read_pickle
from threer.types import View

CALL = (
    "AsymmetricCroCo3DStereo(pos_embed='RoPE100', patch_embed_cls='ManyAR_PatchEmbed', img_size=(64, 64), "
    "head_type='linear', output_mode='pts3d', depth_mode=('exp', -inf, inf), conf_mode=('exp', 1, inf), "
    "enc_embed_dim=64, enc_depth=3, enc_num_heads=4, dec_embed_dim=48, dec_depth=4, dec_num_heads=4)"
)


@pytest.fixture(scope="module")
def case() -> Case:
    return load_case("dust3r_linear_square")


def halves(folder: Path, names: tuple[str, str] = ("slam3r_i2p", "slam3r_l2w")) -> Path:
    """A folder with both halves of SLAM3R as Hub folders."""
    e2e = load_case("slam3r_e2e_auto_reservoir")
    for name, part in zip(names, ("i2p", "l2w"), strict=True):
        (folder / name).mkdir(parents=True)
        state = {k.removeprefix(f"{part}."): t for k, t in e2e.weights.items() if k.startswith(f"{part}.")}
        save_file(state, folder / name / "model.safetensors")
        arguments = json.dumps(e2e.config[part]).replace('"inf"', "Infinity").replace('"-inf"', "-Infinity")
        (folder / name / "config.json").write_text(arguments)
    return folder


def predicted(model: DUSt3R, case: Case) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.stack([case.inputs["view1.img"], case.inputs["view2.img"]], 1))[1].points.xyz


def assert_reference(model: Any, case: Case) -> None:
    want = case.outputs["pred2.pts3d_in_other_view"]
    assert torch.allclose(predicted(model, case), want, atol=2e-5 * want.abs().max().item())


def test_pth_with_settings(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "dust3r.pth"
    settings = argparse.Namespace(model=CALL, lr=1e-4, epochs=[1, 2])
    torch.save({"model": case.weights, "args": settings, "epoch": 3, "best_so_far": math.inf}, path)
    model = load_model(path)
    assert_reference(model, case)
    assert not model.config.stored_landscape, "inference keeps the orientation of images"
    assert model.checkpoint.family == "dust3r"
    assert model.checkpoint.files == (str(path),)


def test_pth_with_omegaconf_settings(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {name: types.ModuleType(name) for name in ("omegaconf", "omegaconf.dictconfig", "omegaconf.nodes")}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    config_class = type("DictConfig", (), {"__module__": "omegaconf.dictconfig"})
    node_class = type("AnyNode", (), {"__module__": "omegaconf.nodes"})
    modules["omegaconf.dictconfig"].DictConfig = config_class
    modules["omegaconf.nodes"].AnyNode = node_class
    node, settings = node_class(), config_class()
    node._val = CALL.replace("AsymmetricCroCo3DStereo(", "Model(ModelConfig(") + ")"
    settings._content = {"model": node}
    path = tmp_path / "model.pth"
    torch.save({"model": case.weights, "args": settings}, path)
    for name in modules:
        monkeypatch.delitem(sys.modules, name)
    assert_reference(load_model(path), case)


def test_hub_folder_whole_and_in_shards(case: Case, tmp_path: Path) -> None:
    arguments = json.dumps(case.config["constructor"]).replace('"inf"', "Infinity").replace('"-inf"', "-Infinity")
    assert "-Infinity" in arguments
    whole, sharded = tmp_path / "whole", tmp_path / "sharded"
    for folder in (whole, sharded):
        folder.mkdir()
        (folder / "config.json").write_text(arguments)
    save_file(case.weights, whole / "model.safetensors")
    names = sorted(case.weights)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for shard, members in shards.items():
        save_file({n: case.weights[n] for n in members}, sharded / shard)
    index = {"weight_map": {n: shard for shard, members in shards.items() for n in members}}
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    assert_reference(load_model(whole), case)
    assert_reference(load_model(sharded), case)
    (sharded / "b.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"incomplete: b\.safetensors.* is missing"):
        load_model(sharded)


def test_cut3r_from_its_nested_constructor_call(tmp_path: Path) -> None:
    cut3r = load_case("cut3r_linear_eps")
    literals = (f"{k}={v!r}" for k, v in cut3r.config["constructor"].items() if not k.endswith("_mode"))
    modes = "depth_mode=('exp', -inf, inf), conf_mode=('exp', 1, inf), pose_mode=('exp', -inf, inf)"
    call = f"ARCroco3DStereo(ARCroco3DStereoConfig({', '.join(literals)}, output_mode='pts3d+pose', {modes}))"
    path = tmp_path / "cut3r.pth"
    state = {f"module.{k}": t for k, t in cut3r.weights.items()}
    torch.save({"model": state, "args": argparse.Namespace(model=call), "epoch": 1}, path)
    model = load_model(path)
    assert isinstance(model, CUT3R)
    assert model.checkpoint.family == "cut3r"
    with torch.no_grad():
        got = model([View(cut3r.inputs[f"view{i}.img"]) for i in range(2)])[1].points.xyz
    want = cut3r.outputs["recurrent.frame1.pts3d_in_other_view"]
    assert torch.allclose(got, want, atol=2e-5 * want.abs().max().item())


def test_fast3r_from_the_hub_and_from_lightning(tmp_path: Path) -> None:
    fast3r = load_case("fast3r_full_v2")
    arguments = json.dumps(fast3r.config["constructor"]).replace('"inf"', "Infinity").replace('"-inf"', "-Infinity")
    hub = tmp_path / "Fast3R"
    hub.mkdir()
    (hub / "config.json").write_text(arguments)
    # The Hub keeps one of two names of one tensor.
    save_file({k: t for k, t in fast3r.weights.items() if ".layer_rn." not in k}, hub / "model.safetensors")
    model = load_model(hub)
    assert isinstance(model, Fast3R)
    assert model.checkpoint.family == "fast3r"
    assert not model.config.stored_landscape
    views = [View(fast3r.inputs[f"view{i}.img"]) for i in range(2)]
    with torch.no_grad():
        got = model(views)[1].local
    want = fast3r.outputs["pred1.pts3d_local"]
    assert got is not None
    assert torch.allclose(got.xyz, want, atol=3e-5 * want.abs().max().item())
    lightning = tmp_path / "last.ckpt"
    state = {f"net.{k}": t for k, t in fast3r.weights.items()} | {"train_loss.total": torch.zeros(())}
    torch.save({"state_dict": state, "epoch": 3, "pytorch-lightning_version": "2.4"}, lightning)
    trained = load_model(lightning)
    for name, tensor in model.state_dict().items():
        assert torch.equal(trained.state_dict()[name], tensor), name


def test_folder_with_both_halves(tmp_path: Path) -> None:
    model = load_model(halves(tmp_path))
    assert model.checkpoint.family == "slam3r"
    image = torch.zeros(1, 3, 32, 48)
    assert model.encode(image).shape == (1, 6, 32)
    with pytest.raises(CheckpointError, match="Image-to-Points half; give a folder that holds both"):
        load_path(tmp_path / "slam3r_i2p")


def test_swapped_halves_are_noticed(tmp_path: Path) -> None:
    halves(tmp_path, ("slam3r_l2w", "slam3r_i2p"))
    with pytest.raises(
        CheckpointError, match=r"slam3r_i2p is SLAM3R's Local-to-World half, expected .*Points half"
    ):
        load_path(tmp_path)


def test_other_families_are_named(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    for tensors, message in (
        ({"prediction_head.weight": torch.zeros(1)}, "is CroCo, which only starts a training; it cannot be loaded"),
        ({"pose_retriever.mem": torch.zeros(1)}, r"other\.safetensors: no tensor for state_table and"),
        ({"layer1.conv.weight": torch.zeros(1)}, "not a network known here: it begins with tensor layer1.conv"),
    ):
        save_file(tensors, path)
        with pytest.raises(CheckpointError, match=message):
            load_model(path)
    save_file(case.weights, path)
    with pytest.raises(CheckpointError, match="is DUSt3R, expected SLAM3R's Image-to-Points half"):
        load_published(path, "slam3r_i2p")


def test_error_names_file_and_tensor(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "short.safetensors"
    save_file({k: t for k, t in case.weights.items() if k != "dec_blocks.2.norm_y.weight"}, path)
    with pytest.raises(
        CheckpointError, match=r"short\.safetensors: no tensor for decoder\.first\.2\.memory_norm\.wei"
    ):
        load_model(path)


def test_truncated_safetensors_gives_byte_counts(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(case.weights, path)
    data = path.read_bytes()
    path.write_bytes(data[:-1000])
    with pytest.raises(CheckpointError, match=f"truncated: .* announces {len(data):,} bytes, {len(data) - 1000:,}"):
        load_model(path)
    path.write_bytes(data[:50])
    with pytest.raises(CheckpointError, match=r"truncated or not a safetensors file: .* 50 are there"):
        load_model(path)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="truncated or not a safetensors file"):
        load_model(path)


def test_truncated_pth_gives_the_byte_count(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({"model": case.weights}, path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"model\.pth is truncated: .*5,000 bytes"):
        load_model(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xd8\xff\xe0 a picture, not weights at all", "neither a safetensors nor a PyTorch file .* bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (pickle.dumps([1, 2]), "is damaged|holds more than weights"),
    ],
)
def test_foreign_files(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def test_a_foreign_pickle_is_refused_in_one_line_without_warnings(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps({"a": [1, 2]}, protocol=4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(CheckpointError, match="it is not a PyTorch weight file"):
            load_model(path)


class Evil:
    def __reduce__(self) -> Any:
        return exec, ("import pathlib; pathlib.Path('ran').touch()",)


def test_nothing_in_a_pickle_is_run(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pth"
    torch.save({"model": case.weights, "args": Evil()}, path)
    with pytest.raises(
        CheckpointError, match=r"holds more than weights and is not read: it names \S*exec"
    ) as caught:
        load_model(path)
    assert not (tmp_path / "ran").exists()
    assert "\n" not in str(caught.value)


def test_contents_that_are_not_weights(tmp_path: Path) -> None:
    path = tmp_path / "odd.pth"
    for contents, message in (
        ([torch.zeros(1)], "holds a list, not weights"),
        ({"model": {}}, "holds no weights"),
        ({"model": {"a": 3}}, "entry a is a int, not a tensor"),
    ):
        torch.save(contents, path)
        with pytest.raises(CheckpointError, match=message):
            read_weights(path)
    with pytest.raises(CheckpointError, match="no such file or folder"):
        load_model(tmp_path / "nowhere.pth")
    with pytest.raises(CheckpointError, match=r"holds neither model\.safetensors"):
        load_model(tmp_path)


def test_allow_list_does_not_outlive_the_call(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({"model": {"a": torch.zeros(1)}, "args": argparse.Namespace(model="A()")}, path)
    assert read_pickle(path)["args"].model == "A()"
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


def test_constructor_call_is_data() -> None:
    name, arguments = parse_constructor("Net(a=(1, -2.5), b=['x', None, True], c=-inf, d={'k': inf})")
    assert name == "Net"
    assert arguments == {"a": (1, -2.5), "b": ["x", None, True], "c": -math.inf, "d": {"k": math.inf}}
    assert parse_constructor("A(B(size=3), other=4)") == ("A", {"size": 3, "other": 4})


@pytest.mark.parametrize(
    "text",
    [
        "Net(a=open('x'))",
        "Net(**{'a': 1})",
        "__import__('os').system('x')",
        "Net(a=b)",
        "1 + 1",
        "Net(",
        "Net(3)",
        "Net(a=-'x')",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(CheckpointError, match="not a constructor call with plain values"):
        parse_constructor(text)
