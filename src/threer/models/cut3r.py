"""CUT3R: views into a persistent state; points, cameras and colours out of it (Wang et al., CVPR 2025)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from threer.errors import ThreerError
from threer.geometry.transforms import pose_from_quaternion
from threer.models.backbone import Backbone, NetworkConfig, as_views, initialise, shapes_of
from threer.nn.blocks import MLP, ModulatedBlock, layer_norm
from threer.nn.decoder import Stream, TwoStreamDecoder
from threer.nn.encoder import Layout, ViTEncoder, grid_positions
from threer.nn.heads import PointMode, to_colour, to_pose, turn_to_front
from threer.nn.memory import PoseMemory
from threer.nn.rope import rope_table
from threer.types import Checkpoint, Prediction, View

Flags = bool | Tensor
"""One answer for all samples, or [B] bool."""

RAY_CHANNELS = 6
WORLD_BLOCKS = 2
POSE_POSITION = -1
"""Row and column of the pose token, outside of the image."""


@dataclass(frozen=True)
class CUT3RConfig(NetworkConfig):
    """Sizes of CUT3R; the defaults are those of the published 224-pixel model with linear heads."""

    state_size: int = 768
    """Tokens of the state."""
    state_heads: int = 16
    """Heads of the state's half of the decoder; the image's half has `dec_heads`."""
    state_positions: Literal["grid", "line"] = "grid"
    """State tokens lie on a grid, or along its diagonal."""
    memory_size: int = 256
    """Entries of the pose memory."""
    ray_depth: int = 2
    ray_heads: int = 16
    pose_mode: PointMode = "exp"
    true_rays: bool = False
    """Ray maps hold directions of rays, instead of what the published weights expect in their place."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_heads("dec_dim", self.dec_dim, "state_heads", self.state_heads, 4)
        self._check_heads("enc_dim", self.enc_dim, "ray_heads", self.ray_heads, 4)
        for name in ("state_size", "memory_size", "ray_depth"):
            if getattr(self, name) < 1:
                raise ThreerError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.state_positions not in ("grid", "line"):
            raise ThreerError(f"state_positions must be 'grid' or 'line', got {self.state_positions!r}")


@dataclass(frozen=True, eq=False)
class State:
    """All that CUT3R knows of what it has seen: its size does not depend on how much that was.

    tokens           [B, S, C]
    positions        [B, S, 2] integer (row, column), constant
    memory           [B, M, 2C] pose memory
    initial_tokens   [B, S, C] what a reset goes back to
    initial_memory   [B, M, 2C]
    first            no view has been seen: the next one defines the world
    """

    tokens: Tensor
    positions: Tensor
    memory: Tensor
    initial_tokens: Tensor
    initial_memory: Tensor
    first: bool = True

    def __post_init__(self) -> None:
        if self.tokens.ndim != 3 or self.memory.ndim != 3:
            raise ValueError(
                f"a state is [B, S, C] and [B, M, 2C], got {_shape(self.tokens)}, {_shape(self.memory)}"
            )
        if self.memory.shape[::2] != (self.batch, 2 * self.tokens.shape[2]):
            raise ValueError(f"pose memory {_shape(self.memory)} does not fit state tokens {_shape(self.tokens)}")
        if self.positions.shape != (*self.tokens.shape[:2], 2):
            raise ValueError(f"positions {_shape(self.positions)} do not fit state tokens {_shape(self.tokens)}")
        for name, initial, current in (
            ("tokens", self.initial_tokens, self.tokens),
            ("memory", self.initial_memory, self.memory),
        ):
            if initial.shape != current.shape:
                raise ValueError(f"initial {name} {_shape(initial)} differ in shape from {_shape(current)}")

    @property
    def batch(self) -> int:
        return int(self.tokens.shape[0])


class CUT3R(Backbone):
    """One encoder for images and one for camera rays, and a decoder between the view at hand and the state.

    Images go in one by one (`step`) or all at once (`forward`, `rollout`); a view given as camera rays alone asks
    what the state knows of it (`query`). Points and cameras are in the frame of the first view, in metres where the
    weights are metric.
    """

    checkpoint = Checkpoint("untrained", "cut3r", (), "Apache-2.0", description="random weights")
    config: CUT3RConfig

    def __init__(self, config: CUT3RConfig) -> None:
        super().__init__(config)
        enc, dec, hidden = config.enc_dim, config.dec_dim, 4 * config.dec_dim
        self.ray_encoder = ViTEncoder(
            enc, config.ray_depth, config.ray_heads, rope_base=config.rope_base, channels=RAY_CHANNELS
        )
        self.ray_norm = layer_norm(enc)
        self.bridge = nn.Linear(enc, dec)
        self.state_bridge = nn.Linear(enc, dec)
        self.decoder = TwoStreamDecoder(
            dec, config.dec_depth, (config.dec_heads, config.state_heads), config.mlp_ratio, config.rope_base
        )  # first: the view; second: the state
        self.decoder_norm = layer_norm(dec)
        self.state_norm = layer_norm(dec)
        self.memory = PoseMemory(enc, dec, config.memory_size, config.dec_heads)
        self.world_blocks = nn.ModuleList(ModulatedBlock(dec, config.dec_heads) for _ in range(WORLD_BLOCKS))
        self.local_head = self.make_head(hidden=hidden)
        self.world_head = self.make_head(hidden=hidden)
        self.colour_head = self.make_head(channels=3, hidden=hidden)
        self.pose_head = MLP(dec, hidden, out=7)
        self.apply(initialise)
        self.state_table = nn.Parameter(torch.randn(config.state_size, enc))
        self.first_pose = nn.Parameter(torch.randn(1, 1, dec) * 0.02)
        self.no_image = nn.Parameter(torch.randn(1, enc) * 0.02)
        self.no_rays = nn.Parameter(torch.randn(1, enc) * 0.02)
        nn.init.normal_(self.memory.unknown, std=0.2)
        nn.init.normal_(self.memory.empty, std=0.2)

    def start(self, batch: int = 1) -> State:
        """The state of ``batch`` samples before anything was seen."""
        tokens = self.state_bridge(self.state_table).expand(batch, -1, -1)
        memory = self.memory.empty.expand(batch, -1, -1)
        positions = self._state_positions(tokens.device).expand(batch, -1, -1)
        return State(tokens, positions, memory, tokens, memory)

    def step(
        self, state: State, view: View, update: Flags = True, reset: Flags = False, colours: bool = True
    ) -> tuple[State, Prediction]:
        """Take in one view, in memory that does not grow: the state afterwards, and what the view shows.

        view     an image, camera rays, or both; only samples with an image change the state
        update   whether what is seen is kept; where it is not, the state stays as it is, bit for bit
        reset    whether the state returns to its beginning after this view
        colours  whether to predict colours, too
        """
        features = self._features([view])[0]
        return self._advance(state, view, features, update, reset, colours)

    def query(self, state: State, view: View, colours: bool = True) -> Prediction:
        """What ``state`` knows of a view of which only the camera is given: ``view.ray_map`` [B, H, W, 6]."""
        if not bool(view.has_rays.all()):
            raise ValueError("a query needs a ray map for every sample")
        rays = replace(view, image=None, tokens=None, image_mask=None)
        features = self._features([rays])[0]
        return self._advance(replace(state, first=False), rays, features, False, False, colours)[1]

    def rollout(
        self,
        views: Sequence[View] | Tensor,
        update: Sequence[Flags] | None = None,
        reset: Sequence[Flags] | None = None,
        colours: bool = True,
        state: State | None = None,
        stand_ins: bool | None = None,
    ) -> Iterator[tuple[State, Prediction]]:
        """As `step` on one view after the other, with all encoded beforehand, in one batch if possible.

        As soon as one sample of one view has camera rays, learned tokens stand in for all images and rays that are
        missing; `step` has none. This is how the network was trained. ``update`` and ``reset`` have an entry for
        each view. A part of a longer sequence goes on from ``state`` and says by ``stand_ins`` whether there are
        rays anywhere in all of it.
        """
        views = as_views(views)
        update, reset = update or [True] * len(views), reset or [False] * len(views)
        if stand_ins is None:
            stand_ins = any(bool(v.has_rays.any()) for v in views)
        features = self._features(views, stand_ins)
        state = state or self.start(views[0].batch)
        for view, tokens, keep, forget in zip(views, features, update, reset, strict=True):
            state, prediction = self._advance(state, view, tokens, keep, forget, colours)
            yield state, prediction

    def forward(
        self,
        views: Sequence[View] | Tensor,
        update: Sequence[Flags] | None = None,
        reset: Sequence[Flags] | None = None,
    ) -> list[Prediction]:
        """What `rollout` shows of each view; a tensor [B, V, 3, H, W] stands for V images."""
        return [prediction for _, prediction in self.rollout(views, update, reset)]

    def _features(self, views: Sequence[View], stand_ins: bool = False) -> list[Tensor]:
        """[B, N, C_e] of each view: normalised tokens of its image plus those of its rays, of what it has."""
        with_image = [i for i, view in enumerate(views) if bool(view.has_image.any())]
        chosen = [_samples(views[i], views[i].has_image) for i in with_image]
        encoded = dict(zip(with_image, self.tokens_of(chosen), strict=True))
        features = []
        for i, view in enumerate(views):
            if not bool((view.has_image | view.has_rays).any()):
                raise ValueError(f"view {i} has neither an image nor a ray map in any sample")
            images = self.encoder_norm(encoded[i]) if i in encoded else None
            rays = self._ray_tokens(view) if bool(view.has_rays.any()) else None
            parts = (
                _spread(images, view.has_image, self.no_image if stand_ins else None),
                _spread(rays, view.has_rays, self.no_rays if stand_ins else None),
            )
            given = [part for part in parts if part is not None]
            features.append(given[0] if len(given) == 1 else given[0] + given[1])
        return features

    def _ray_tokens(self, view: View) -> Tensor:
        chosen = _samples(view, view.has_rays)
        assert chosen.ray_map is not None
        layout = Layout.of(chosen.shape.tolist())
        tokens: Tensor = self.ray_norm(self.ray_encoder(chosen.ray_map.permute(0, 3, 1, 2), layout))
        return tokens

    def _advance(
        self, state: State, view: View, features: Tensor, update: Flags, reset: Flags, colours: bool
    ) -> tuple[State, Prediction]:
        self._check(state, view)
        kept = _flags(update, view.batch) & view.has_image
        live = bool(kept.any())
        key = self.memory.key(features)  # [B, 1, C]
        pose = self.first_pose.expand_as(key) if state.first else self.memory.read(state.memory, key)
        positions = self.layout([view]).positions(features.device)  # [B, N, 2]
        placed = torch.cat((positions.new_full((view.batch, 1, 2), POSE_POSITION), positions), dim=1)
        tokens = torch.cat((pose, self.bridge(features)), dim=1)
        depth = self.config.dec_depth
        layers, state_layers = self.decoder(
            Stream(tokens.unsqueeze(1), placed.unsqueeze(1)),
            Stream(state.tokens.unsqueeze(1), state.positions.unsqueeze(1)),
            keep={*self.taps, depth},
            last=None if live else "first",  # nobody reads a state that is not kept
        )
        view_tokens = {layer: x.squeeze(1) for layer, x in layers.items()}  # each [B, 1 + N, C], pose token first
        view_tokens[depth] = self.decoder_norm(view_tokens[depth])
        prediction = self._predict(view, features, view_tokens, positions, colours)
        if live:
            found = self.memory.write(state.memory, key, view_tokens[depth][:, :1])
            seen = self.state_norm(state_layers[depth].squeeze(1))
            state = _replaced(state, kept, seen, found)
        forgotten = _flags(reset, view.batch)
        if bool(forgotten.any()):
            state = _replaced(state, forgotten, state.initial_tokens, state.initial_memory)
        return replace(state, first=False), prediction

    def _predict(
        self, view: View, features: Tensor, layers: dict[int, Tensor], positions: Tensor, colours: bool
    ) -> Prediction:
        """Heads on ``layers`` [B, 1 + N, C], of which the last one is normalised."""
        depth = self.config.dec_depth
        pose, seen = layers[depth][:, 0], layers[depth][:, 1:]
        rope = rope_table(positions, self.config.dec_dim // self.config.dec_heads, self.config.rope_base)
        moved = seen
        for block in self.world_blocks:
            moved = block(moved, pose, rope)
        shapes = shapes_of([view])
        below = [features if k == 0 else layers[k][:, 1:] for k in self.taps[:-1]]
        # The activations are exponentials: heads always run in float32.
        with torch.autocast(features.device.type, enabled=False):
            own, world = ([t.float() for t in (*below, last)] for last in (seen, moved))
            raw = self.raw_maps(self.local_head, own, shapes)  # [B, 4, H, W]
            if self.config.head == "linear":
                raw = torch.cat((turn_to_front(raw[:, :3].movedim(1, -1)).movedim(-1, 1), raw[:, 3:]), dim=1)
            local = self.to_pointmap(raw)
            points = self.to_pointmap(self.raw_maps(self.world_head, world, shapes))
            rgb = to_colour(self.raw_maps(self.colour_head, own, shapes)).movedim(1, -1) if colours else None
            c2w = pose_from_quaternion(*to_pose(self.pose_head(pose.float()), self.config.pose_mode))
        return Prediction(points, "first", local=local, c2w=c2w, rgb=rgb)

    def _state_positions(self, device: torch.device) -> Tensor:
        """[S, 2] (row, column)."""
        count = self.config.state_size
        if self.config.state_positions == "line":
            return torch.arange(count, device=device).unsqueeze(-1).expand(-1, 2)
        width = math.isqrt(count)
        width += width % 2
        return grid_positions(math.ceil(count / width), width, device)[:count]

    def _check(self, state: State, view: View) -> None:
        expected = (view.batch, self.config.state_size, self.config.dec_dim)
        if state.tokens.shape != expected:
            raise ValueError(
                f"state tokens are {_shape(state.tokens)}, this network and view need {list(expected)}"
            )
        if state.memory.shape[1] != self.config.memory_size:
            raise ValueError(f"the pose memory has {state.memory.shape[1]} entries, not {self.config.memory_size}")


def _replaced(state: State, where: Tensor, tokens: Tensor, memory: Tensor) -> State:
    """``state`` with new tokens and memory in the samples ``where`` [B] says so."""
    if not bool(where.all()):
        chosen = where.to(tokens.device)[:, None, None]
        tokens = torch.where(chosen, tokens, state.tokens)
        memory = torch.where(chosen, memory, state.memory)
    return replace(state, tokens=tokens, memory=memory)


def _samples(view: View, chosen: Tensor) -> View:
    """The samples of ``view`` that are ``chosen`` [B]."""
    if bool(chosen.all()):
        return replace(view, image_mask=None, ray_mask=None)
    parts = (None if t is None else t[chosen.to(t.device)] for t in (view.image, view.tokens, view.ray_map))
    image, tokens, ray_map = parts
    return View(image, view.shape[chosen.to(view.shape.device)], tokens, ray_map=ray_map)


def _spread(tokens: Tensor | None, present: Tensor, stand_in: Tensor | None) -> Tensor | None:
    """Tokens of the samples that are ``present`` [B] in place: [B, N, C], with the stand-in, or 0, for the others.

    Where none is there: the stand-in alone, [B, 1, C], or None.
    """
    if tokens is None:
        return None if stand_in is None else stand_in.expand(len(present), 1, -1)
    if bool(present.all()):
        return tokens
    blank = tokens.new_zeros(1) if stand_in is None else stand_in.to(tokens.dtype)
    spread = blank.expand(len(present), *tokens.shape[1:]).clone()
    spread[present.to(tokens.device)] = tokens
    return spread


def _flags(value: Flags, batch: int) -> Tensor:
    """[B] bool on the CPU."""
    flags = torch.as_tensor(value).cpu()
    if flags.dtype != torch.bool or flags.ndim > 1 or (flags.ndim == 1 and len(flags) != batch):
        raise ValueError(f"flags must be one bool or bool [{batch}], got {flags.dtype} {list(flags.shape)}")
    return flags.expand(batch)


def _shape(tensor: Tensor) -> list[int]:
    return list(tensor.shape)
