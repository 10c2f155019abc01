"""What DUSt3R and SLAM3R have in common: one encoder, two decoder streams that read each other, two heads."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from threer.config import InputSpec
from threer.errors import ThreerError
from threer.nn.blocks import layer_norm
from threer.nn.decoder import Side, Stream, TwoStreamDecoder
from threer.nn.dpt import DPTDims, DPTHead, dpt_taps
from threer.nn.encoder import Layout, ViTEncoder
from threer.nn.heads import LinearHead, PointMode, from_points, to_confidence, to_points
from threer.nn.rope import BASE
from threer.types import Pointmap, View

# The published square models are made for 224 pixels, all others for a long side of 512.
SQUARE_UP_TO = 224


@dataclass(frozen=True)
class TrunkConfig:
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
        for name, dim, heads in (("enc", self.enc_dim, self.enc_heads), ("dec", self.dec_dim, self.dec_heads)):
            if heads < 1 or dim % (4 * heads):
                raise ThreerError(
                    f"{name}_dim {dim} cannot be split into {name}_heads {heads} heads of a multiple of 4"
                )
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


class Trunk(nn.Module):
    """Encoder, projection, two-stream decoder and one head for each stream."""

    def __init__(self, config: TrunkConfig, encoder: bool = True) -> None:
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
            )
            if encoder
            else None
        )
        self.encoder_norm = layer_norm(config.enc_dim)
        self.bridge = nn.Linear(config.enc_dim, config.dec_dim)
        self.decoder = TwoStreamDecoder(
            config.dec_dim,
            config.dec_depth,
            (config.dec_heads, config.dec_heads),
            config.mlp_ratio,
            config.rope_base,
        )
        self.decoder_norm = layer_norm(config.dec_dim)
        self.first_head = self._make_head()
        self.second_head = self._make_head()
        self.apply(_initialise)

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

    def tokens_of(self, views: Sequence[View]) -> list[Tensor]:
        """Tokens [B, N, C] of every view, before the norm: cached, or encoded now, in one batch if possible."""
        missing = [(i, v.image, v.shape) for i, v in enumerate(views) if v.tokens is None and v.image is not None]
        tokens = [v.tokens for v in views]
        if len({image.shape for _, image, _ in missing}) == 1:
            encoded = self.encode(torch.cat([m[1] for m in missing]), torch.cat([m[2] for m in missing]))
            for (i, _, _), part in zip(missing, encoded.chunk(len(missing)), strict=True):
                tokens[i] = part
        else:
            for i, image, shape in missing:
                tokens[i] = self.encode(image, shape)
        return [t for t in tokens if t is not None]

    def layout(self, views: Sequence[View]) -> Layout:
        """Layout of the B·V samples of ``views``, sample by sample. Raises ValueError when their sizes differ."""
        return Layout.of(_shapes(views), landscape=self.config.stored_landscape)

    def stream(self, features: Tensor, views: Sequence[View], offset: Tensor | None = None) -> Stream:
        """Normalised ``features`` [B, V, N, C_e] of ``views`` as decoder input."""
        positions = self.layout(views).positions(features.device)
        positions = torch.unflatten(positions, 0, features.shape[:2])
        return Stream(self.bridge(features), positions, offset)

    def decode(
        self, first: Stream, second: Stream, also: int | None = None, last: Side | None = None
    ) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """Layers [B, V, N, C_d] that the heads read, and layer ``also``, of both streams; the last one normalised.

        ``last`` names the only stream whose last layer is wanted.
        """
        depth = self.config.dec_depth
        first_layers, second_layers = self.decoder(first, second, {*self.taps, also or depth}, last=last)
        for layers in (first_layers, second_layers):
            if depth in layers:
                layers[depth] = self.decoder_norm(layers[depth])
        return first_layers, second_layers

    def pointmaps(
        self,
        head: nn.Module,
        features: Tensor,
        layers: Mapping[int, Tensor],
        views: Sequence[View],
        start: Tensor | None = None,
    ) -> list[Pointmap]:
        """What ``head`` makes of one stream: ``features`` [B, V, N, C_e], decoder ``layers`` [B, V, N, C_d].

        ``start`` [B, V, H, W, 3] are points that the head's raw output moves, or None for the origin.
        """
        chosen = {0: features} | dict(layers)
        # The point activation is an exponential: heads always run in float32 (networks.md section 6).
        with torch.autocast(features.device.type, enabled=False):
            raw = self._raw_maps(head, [chosen[k].float().flatten(0, 1) for k in self.taps], _shapes(views))
            raw = torch.unflatten(raw, 0, features.shape[:2])  # [B, V, 4, H, W]
            vectors = raw[:, :, :3].movedim(2, -1)
            if start is not None:
                vectors = vectors + from_points(start, self.config.point_mode)
            xyz = to_points(vectors, self.config.point_mode)
            conf = to_confidence(raw[:, :, 3], self.config.conf_min, self.config.conf_max)
        return [Pointmap(xyz[:, v], conf[:, v]) for v in range(len(views))]

    def _raw_maps(self, head: nn.Module, taps: list[Tensor], shapes: list[list[int]]) -> Tensor:
        layout = Layout.of(shapes, landscape=self.config.landscape_maps)
        height, width = layout.size
        if not any(layout.transposed):
            plain: Tensor = head(taps, (height, width))
            return plain
        turned = torch.tensor(layout.transposed, device=taps[0].device)
        maps = taps[0].new_empty(len(shapes), 4, height, width)
        if not all(layout.transposed):
            maps[~turned] = head([t[~turned] for t in taps], (height, width))
        maps[turned] = head([t[turned] for t in taps], (width, height)).transpose(-1, -2)
        return maps

    def _make_head(self) -> nn.Module:
        c = self.config
        if c.head == "dpt":
            return DPTHead((c.enc_dim, c.dec_dim, c.dec_dim, c.dec_dim), dims=c.dpt)
        return LinearHead(c.dec_dim, c.ray_prior, c.image_size if c.pixel_bias else None)


def as_views(views: Sequence[View] | Tensor) -> list[View]:
    """A stacked tensor [B, V, 3, H, W] as V views."""
    if isinstance(views, Tensor):
        if views.ndim != 5:
            raise ValueError(f"stacked views must be [B, V, 3, H, W], got {list(views.shape)}")
        return [View(image) for image in views.unbind(1)]
    return list(views)


def _shapes(views: Sequence[View]) -> list[list[int]]:
    """(H, W) of the B·V samples, sample by sample."""
    batches = {v.batch for v in views}
    if len(batches) != 1:
        raise ValueError(f"views have different batch sizes: {', '.join(map(str, sorted(batches)))}")
    shapes: list[list[int]] = torch.stack([v.shape.cpu() for v in views], dim=1).flatten(0, 1).tolist()
    return shapes


def _initialise(module: nn.Module) -> None:
    """Start as masked autoencoders do (He et al. 2022): Xavier weights, zero biases; heads start near zero."""
    if isinstance(module, LinearHead):
        nn.init.normal_(module.linear.weight, std=0.01)
    elif isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d) and module.kernel_size == module.stride:
        nn.init.xavier_uniform_(module.weight.data.flatten(1))
