"""The full-size published networks: every tensor name and shape finds its place, none is left over."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from golden_cases import golden_root
from threer.errors import CheckpointError
from threer.models.official import detect_family, from_official

PUBLISHED = {
    "DUSt3R_ViTLarge_BaseDecoder_224_linear": ("dust3r", 877),
    "DUSt3R_ViTLarge_BaseDecoder_512_linear": ("dust3r", 877),
    "DUSt3R_ViTLarge_BaseDecoder_512_dpt": ("dust3r", 1009),
    "slam3r_i2p": ("slam3r_i2p", 882),
    "slam3r_l2w": ("slam3r_l2w", 591),
    "slam3r_l2w_with_encoder": ("slam3r_l2w", 879),
    "cut3r_224_linear_4": ("cut3r", 1056),
    "cut3r_512_dpt_4_64": ("cut3r", 1248),
    "Fast3R_ViT_Large_512": ("fast3r", 720),
}
RESIDUAL_UNIT = 2 * (256 * 256 * 9 + 256)
# Parameters in the file that no forward pass uses: DUSt3R's mask token; a residual unit of each DPT head's
# coarsest level; the patch embedding of a Local-to-World half without encoder.
UNUSED = {
    "dust3r": 768,
    "DUSt3R_ViTLarge_BaseDecoder_512_dpt": 768 + 2 * RESIDUAL_UNIT,
    "cut3r_512_dpt_4_64": 3 * RESIDUAL_UNIT,
    "Fast3R_ViT_Large_512": 2 * RESIDUAL_UNIT,
    "slam3r_l2w": 1024 * 3 * 256 + 1024,
}


def manifest(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((golden_root() / "manifests" / f"{name}.json").read_text())
    return loaded


def tensors(entry: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: torch.empty(shape, device="meta") for name, (shape, _) in entry["state_dict"].items()}


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_tensor_of_a_published_network_has_its_place(name: str) -> None:
    family, count = PUBLISHED[name]
    entry = manifest(name)
    state = tensors(entry)
    assert len(state) == count
    assert detect_family(state) == family
    model = from_official(family, entry["constructor"], state)
    unused = UNUSED.get(name, UNUSED["dust3r"] if family == "dust3r" else 0)
    assert sum(p.numel() for p in model.parameters()) == entry["parameter_count"] - unused


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_can_be_read_from_the_tensors_alone(name: str) -> None:
    entry = manifest(name)
    family, _ = PUBLISHED[name]
    told = from_official(family, entry["constructor"], tensors(entry)).config
    read = from_official(family, {}, tensors(entry)).config
    assert (read.enc_dim, read.enc_depth, read.enc_heads) == (told.enc_dim, told.enc_depth, told.enc_heads)
    assert (read.dec_dim, read.dec_depth, read.dec_heads) == (told.dec_dim, told.dec_depth, told.dec_heads)
    assert read.head == told.head
    if family == "cut3r":
        assert (read.state_size, read.state_heads, read.memory_size, read.ray_depth) == (768, 16, 256, 2)


def test_one_name_of_a_shared_tensor_is_enough() -> None:
    entry = manifest("DUSt3R_ViTLarge_BaseDecoder_512_dpt")
    for kept in ("layer_rn.", "layer1_rn."):
        drop = "layer1_rn." if kept == "layer_rn." else "layer_rn."
        state = {k: t for k, t in tensors(entry).items() if drop not in k}
        from_official("dust3r", entry["constructor"], state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.pop("mv_dec_blocks2.7.cross_attn.projk.bias"),
            "no tensor for decoder.second.7.cross.key.bias",
        ),
        (lambda s: s.update(surprise=torch.empty(1, device="meta")), "nothing here takes surprise"),
        (
            lambda s: s.update({"dec_norm.weight": torch.empty(767, device="meta")}),
            r"tensor dec_norm.weight has shape \[767\], expected \[768\]",
        ),
        (
            lambda s: s.update({"mv_dec_blocks1.12.norm1.bias": torch.empty(768, device="meta")}),
            "no place for mv_dec_blocks1.12.norm1.bias",
        ),
    ],
)
def test_the_tensor_at_fault_is_named(change: Any, message: str) -> None:
    entry = manifest("slam3r_l2w")
    state = tensors(entry)
    change(state)
    with pytest.raises(CheckpointError, match=message):
        from_official("slam3r_l2w", entry["constructor"], state)
