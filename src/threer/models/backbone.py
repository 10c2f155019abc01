"""What every network begins with, images to tokens, and what most end with, tokens to maps; and their settings."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from threer.config import InputSpec
from threer.errors import ThreerError
from threer.nn.blocks import MLP, layer_norm
from threer.nn.dpt import DPTDims, DPTHead, dpt_taps
from threer.nn.encoder import Layout, ViTEncoder
from threer.nn.heads import LinearHead, PointMode, from_points, to_confidence, to_points
from threer.nn.rope import BASE
from threer.types import Pointmap, View

# The published square models are made for 224 pixels, all others for a long side of 512.
SQUARE_UP_TO = 224


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of a network. Defaults are the published ones (networks.md section 10)."""

    image_size: int = 224
    """Input size in pixels: of the square, or of the longer side above 224."""
    enc_dim: int = 1024
    enc_depth: int = 24
    enc_heads: int = 16
    dec_dim: int = 768
    dec_depth: int = 12
    dec_heads: int = 12
    mlp_ratio: float = 4.0
    rope_base: float = BASE
    head: Literal["linear", "dpt"] = "linear"
    dpt: DPTDims = field(default_factory=DPTDims)
    point_mode: PointMode = "exp"
    conf_min: float = 1.0
    conf_max: float = math.inf
    absolute_positions: bool = False
    """Add a fixed sine/cosine code of the position to the patch tokens."""
    conv_stem: tuple[int, int, int, int] | None = None
    """Widths of four halving stages of convolutions whose result is added to the patch tokens; None for none."""
    ray_prior: float | None = None
    """Tangent of half the field of view of the rays added to the linear head's raw points."""
    pixel_bias: bool = False
    """Add a learned map of the input's size to the linear head's raw output."""
    stored_landscape: bool = False
    """Training with mixed orientations: images are stored landscape, `true_shape` tells the portrait ones."""
    landscape_maps: bool = False
    """Training with mixed orientations: maps of portrait samples are returned transposed, that is landscape."""

    def __post_init__(self) -> None:
        InputSpec(self.image_size)
        self._check_heads("enc_dim", self.enc_dim, "enc_heads", self.enc_heads, 4)
        self._check_heads("dec_dim", self.dec_dim, "dec_heads", self.dec_heads, 4 if self.decoder_rope else 1)
        for name in ("enc_depth", "dec_depth"):
            if getattr(self, name) < 1:
                raise ThreerError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.head not in ("linear", "dpt"):
            raise ThreerError(f"head must be 'linear' or 'dpt', got {self.head!r}")
        if self.ray_prior is not None and self.head != "linear":
            raise ThreerError("ray_prior needs the linear head")
        if self.pixel_bias and self.head != "linear":
            raise ThreerError("pixel_bias needs the linear head")

    @property
    def decoder_rope(self) -> bool:
        """Whether the decoder knows positions, which takes head sizes that are multiples of 4."""
        return True

    @staticmethod
    def _check_heads(width: str, dim: int, count: str, heads: int, multiple: int) -> None:
        if heads < 1 or dim % (multiple * heads):
            each = "equal heads" if multiple == 1 else f"heads of a multiple of {multiple}"
            raise ThreerError(f"{width} {dim} cannot be split into {count} {heads} {each}")

    @property
    def input(self) -> InputSpec:
        return InputSpec(self.image_size, square=self.image_size <= SQUARE_UP_TO)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote. Raises ThreerError for a key that is not a setting, listing those that are."""
        valid = [f.name for f in dataclasses.fields(cls)]
        for key in values:
            if key not in valid:
                close = difflib.get_close_matches(key, valid, n=1)
                hint = f"; did you mean {close[0]}?" if close else "."
                raise ThreerError(f"{cls.__name__} has no setting {key!r}{hint} Valid: {', '.join(valid)}")
        given = dict(values)
        if isinstance(given.get("dpt"), Mapping):
            dims = dict(given["dpt"])
            given["dpt"] = DPTDims(**dims | {"layers": tuple(dims["layers"])})
        if given.get("conv_stem") is not None:
            given["conv_stem"] = tuple(given["conv_stem"])
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """The settings that differ from the defaults, ready for JSON."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        default = type(self)()
        return {
            name: dataclasses.asdict(value) if isinstance(value, DPTDims) else value
            for name, value in plain.items()
            if value != getattr(default, name)
        }


class Backbone(nn.Module):
    """The encoder and its norm, and the common way from decoder tokens to pointmaps."""

    def __init__(self, config: NetworkConfig, encoder: bool = True) -> None:
        super().__init__()
        self.config = config
        self.encoder = (
            ViTEncoder(
                config.enc_dim,
                config.enc_depth,
                config.enc_heads,
                config.mlp_ratio,
                config.rope_base,
                config.absolute_positions,
                stem=config.conv_stem,
            )
            if encoder
            else None
        )
        self.encoder_norm = layer_norm(config.enc_dim)

    @property
    def input(self) -> InputSpec:
        """How this network wants its images."""
        return self.config.input

    @property
    def taps(self) -> tuple[int, ...]:
        """Layers that the heads read; 0 is the encoder's output after its norm."""
        return dpt_taps(self.config.dec_depth) if self.config.head == "dpt" else (self.config.dec_depth,)

    def encode(self, images: Tensor, true_shape: Tensor | None = None) -> Tensor:
        """images [B, 3, H, W] in [-1, 1] -> tokens [B, N, C] before the encoder's norm, as kept in `View.tokens`.

        ``true_shape`` [B, 2] matters only with `stored_landscape`. Raises ValueError when the sides are not
        multiples of 16, or when ``true_shape`` is not the size of the images.
        """
        if self.encoder is None:
            raise ValueError("this network has no encoder of its own: give it views with tokens")
        stored = (images.shape[-2], images.shape[-1])
        shapes = [list(stored)] * len(images) if true_shape is None else true_shape.tolist()
        layout = Layout.of(shapes, landscape=self.config.stored_landscape)
        if layout.size != stored:
            raise ValueError(f"images are {stored[0]}×{stored[1]} (H×W) but true_shape says {layout.size}")
        tokens: Tensor = self.encoder(images, layout)
        return tokens

    def tokens_of(self, views: Sequence[View], at_once: int | None = None) -> list[Tensor]:
        """Tokens [B, N, C] of every view, before the norm: cached, or encoded now.

        Views of one size are encoded together, ``at_once`` at a time (all by default). Raises ValueError for a
        view that has neither an image nor tokens.
        """
        tokens = {i: view.tokens for i, view in enumerate(views) if view.tokens is not None}
        images: dict[int, Tensor] = {}
        for i, view in enumerate(views):
            if i not in tokens:
                if view.image is None:
                    raise ValueError(f"view {i} has neither an image nor tokens")
                images[i] = view.image
        for group in batches({i: image.shape[1:] for i, image in images.items()}, at_once):
            encoded = self.encode(torch.cat([images[i] for i in group]), torch.cat([views[i].shape for i in group]))
            parts = torch.split(encoded, [len(images[i]) for i in group])
            tokens |= dict(zip(group, parts, strict=True))
        return [tokens[i] for i in range(len(views))]

    def layout(self, views: Sequence[View]) -> Layout:
        """Layout of the B·V samples of ``views``, sample by sample. Raises ValueError when their sizes differ."""
        return Layout.of(shapes_of(views), landscape=self.config.stored_landscape)

    def raw_maps(self, head: nn.Module, taps: Sequence[Tensor], shapes: Sequence[Sequence[int]]) -> Tensor:
        """What ``head`` makes of ``taps`` [B, N, C] of samples of real sizes ``shapes``: raw maps [B, ?, H, W]."""
        layout = Layout.of(shapes, landscape=self.config.landscape_maps)
        height, width = layout.size
        if not any(layout.transposed):
            plain: Tensor = head(taps, (height, width))
            return plain
        turned = torch.tensor(layout.transposed, device=taps[0].device)
        portrait = head([t[turned] for t in taps], (width, height)).transpose(-1, -2)
        maps: Tensor = portrait.new_empty(len(shapes), *portrait.shape[1:])
        maps[turned] = portrait
        if not all(layout.transposed):
            maps[~turned] = head([t[~turned] for t in taps], (height, width))
        return maps

    def to_pointmap(self, raw: Tensor, start: Tensor | None = None) -> Pointmap:
        """Raw maps [..., 4, H, W] to points and confidences, moving ``start`` [..., H, W, 3] or the origin."""
        vectors = raw[..., :3, :, :].movedim(-3, -1)
        if start is not None:
            vectors = vectors + from_points(start, self.config.point_mode)
        conf = to_confidence(raw[..., 3, :, :], self.config.conf_min, self.config.conf_max)
        return Pointmap(to_points(vectors, self.config.point_mode), conf)

    def make_head(self, channels: int = 4, hidden: int | None = None) -> nn.Module:
        """A new head of the kind that the settings name; four channels are raw points and confidences.

        ``hidden`` is the width of a linear head's middle layer, if it has one.
        """
        c = self.config
        if c.head == "dpt":
            return DPTHead((c.enc_dim, c.dec_dim, c.dec_dim, c.dec_dim), channels, c.dpt)
        prior, bias = (c.ray_prior, c.image_size if c.pixel_bias else None) if channels == 4 else (None, None)
        return LinearHead(c.dec_dim, prior, bias, hidden, channels)


def as_views(views: Sequence[View] | Tensor) -> list[View]:
    """A stacked tensor [B, V, 3, H, W] as V views."""
    if isinstance(views, Tensor):
        if views.ndim != 5:
            raise ValueError(f"stacked views must be [B, V, 3, H, W], got {list(views.shape)}")
        views = [View(image) for image in views.unbind(1)]
    if not views:
        raise ValueError("a network needs at least one view")
    return list(views)


def shapes_of(views: Sequence[View]) -> list[list[int]]:
    """(H, W) of the B·V samples, sample by sample."""
    counts = {v.batch for v in views}
    if len(counts) != 1:
        raise ValueError(f"views have different batch sizes: {', '.join(map(str, sorted(counts)))}")
    shapes: list[list[int]] = torch.stack([v.shape.cpu() for v in views], dim=1).flatten(0, 1).tolist()
    return shapes


def batches(kinds: Mapping[int, Hashable], at_once: int | None) -> Iterator[list[int]]:
    """The keys of ``kinds`` in groups of one kind, at most ``at_once`` to a group."""
    groups: dict[Hashable, list[int]] = {}
    for i, kind in kinds.items():
        groups.setdefault(kind, []).append(i)
    for members in groups.values():
        step = at_once or len(members)
        yield from (members[k : k + step] for k in range(0, len(members), step))


def initialise(module: nn.Module) -> None:
    """Start as masked autoencoders do (He et al. 2022): Xavier weights, zero biases; heads start near zero.

    Nothing is done to a module on the meta device: it has no values, and torch would load its compiler for them.
    """
    if any(parameter.is_meta for parameter in module.parameters()):
        return
    if isinstance(module, LinearHead):
        last = module.linear.down if isinstance(module.linear, MLP) else module.linear
        nn.init.normal_(last.weight, std=0.01)
    elif isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d) and module.kernel_size == module.stride:
        nn.init.xavier_uniform_(module.weight.data.flatten(1))
