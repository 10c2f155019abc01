"""What every data set yields and every objective takes: samples of several views with their truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

from threer.geometry.projection import unproject
from threer.geometry.transforms import apply, relative_pose


@dataclass(frozen=True)
class Roles:
    """What the views of a batch are for; the same for all of its samples.

    reference  the view in whose camera frame points are predicted: the first of a pair, the anchor of CUT3R and
               Fast3R, the key frame of a SLAM3R window
    scene      views that Local-to-World is given in the world frame, in the order they are fed
    keys       views that Local-to-World registers
    """

    reference: int = 0
    scene: tuple[int, ...] = ()
    keys: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        chosen = (*self.scene, *self.keys)
        if min((self.reference, *chosen)) < 0 or len(set(chosen)) != len(chosen):
            raise ValueError(f"roles name a view twice or below 0: {self}")
        if bool(self.scene) != bool(self.keys):
            raise ValueError(f"registration needs scene and key views, got {self.scene} and {self.keys}")


@dataclass(frozen=True, eq=False)
class Batch:
    """B samples of V views of one stored size H×W. One sample of a data set is a batch with B = 1; see `cat`.

    images       [B, V, 3, H, W] float in [-1, 1]
    depth        [B, V, H, W] float, z in the camera's frame (never ray length); read only where ``valid``
    valid        [B, V, H, W] bool: pixels that count. Their depth must be finite and above 0
    c2w          [B, V, 4, 4] camera-to-world in any common frame, in the unit of the depth
    K            [B, V, 3, 3] intrinsics of the *upright* image, pixel centres at integers
    distortion   [B, V, 2] k1, k2 of its lens, see `threer.geometry.lens`; on the CPU. 0 for a pinhole
    true_shape   [B, V, 2] (height, width) of the upright image. Where that is the stored size transposed, image,
                 depth and masks are stored transposed (portrait pictures in a batch of landscape ones)
    world        [B, 4, 4] camera-to-world of the frame that Local-to-World takes as the world
    sky          [B, V, H, W] bool: known to be infinitely far; never ``valid``
    metric       [B] bool: the unit is the metre
    camera_only  [B] bool: cameras are known, depth is not; data sets then give depth 1, valid everywhere
    depth_only   [B] bool: depth is known up to scale and shift only
    single_view  [B] bool: views of a sample have nothing to do with each other
    seen         [B, V] bool: the image is fed to the network
    rays         [B, V] bool: the camera's rays are fed to the network (CUT3R)
    roles        what the views are for
    sources      B names, for messages: data set and scene of each sample

    What is left out: pinholes, upright images, all of them seen and no rays, no sky, no flags, the reference as
    world. Raises ValueError for shapes that do not fit.
    """

    images: Tensor
    depth: Tensor
    valid: Tensor
    c2w: Tensor
    K: Tensor
    distortion: Tensor
    true_shape: Tensor
    world: Tensor
    sky: Tensor
    metric: Tensor
    camera_only: Tensor
    depth_only: Tensor
    single_view: Tensor
    seen: Tensor
    rays: Tensor
    roles: Roles = Roles()
    sources: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        images: Tensor,
        depth: Tensor,
        c2w: Tensor,
        K: Tensor,
        valid: Tensor | None = None,
        roles: Roles | None = None,
        sources: Sequence[str] = (),
        **given: Tensor,
    ) -> Self:
        """A batch with the usual values for what is not ``given``; ``valid`` defaults to finite depth above 0."""
        batch, views, _, height, width = images.shape
        device = images.device
        roles = roles or Roles()
        no = torch.zeros(batch, dtype=torch.bool, device=device)
        if valid is None:
            valid = torch.isfinite(depth) & (depth > 0)
        usual: dict[str, Tensor] = {
            "distortion": torch.zeros(batch, views, 2),
            "true_shape": torch.tensor([height, width]).expand(batch, views, 2),
            "world": c2w[:, roles.reference],
            "sky": torch.zeros_like(valid),
            "metric": no,
            "camera_only": no,
            "depth_only": no,
            "single_view": no,
            "seen": torch.ones(batch, views, dtype=torch.bool, device=device),
            "rays": torch.zeros(batch, views, dtype=torch.bool, device=device),
        }
        unknown = set(given) - set(usual)
        if unknown:
            raise ValueError(f"a batch has no {', '.join(sorted(unknown))}; valid: {', '.join(usual)}")
        return cls(images, depth, valid, c2w, K, **usual | given, roles=roles, sources=tuple(sources))

    def __post_init__(self) -> None:
        if self.images.ndim != 5 or self.images.shape[2] != 3:
            raise ValueError(f"Batch.images must be [B, V, 3, H, W], got {list(self.images.shape)}")
        batch, views, _, height, width = self.images.shape
        maps, flags = (batch, views, height, width), (batch,)
        for name, shape in {
            "depth": maps, "valid": maps, "sky": maps, "c2w": (batch, views, 4, 4), "K": (batch, views, 3, 3),
            "distortion": (batch, views, 2), "true_shape": (batch, views, 2), "world": (batch, 4, 4),
            "seen": (batch, views), "rays": (batch, views),
            "metric": flags, "camera_only": flags, "depth_only": flags, "single_view": flags,
        }.items():  # fmt: skip
            if getattr(self, name).shape != shape:
                raise ValueError(f"Batch.{name} must be {list(shape)}, got {list(getattr(self, name).shape)}")
        for name in ("valid", "sky", "seen", "rays", "metric", "camera_only", "depth_only", "single_view"):
            if getattr(self, name).dtype != torch.bool:
                raise ValueError(f"Batch.{name} must be bool, got {getattr(self, name).dtype}")
        if max((self.roles.reference, *self.roles.scene, *self.roles.keys)) >= views:
            raise ValueError(f"{self.roles} names a view beyond the {views} of the batch")
        if self.sources and len(self.sources) != batch:
            raise ValueError(f"Batch.sources must name {batch} samples, got {len(self.sources)}")

    def __len__(self) -> int:
        return self.images.shape[0]

    @property
    def views(self) -> int:
        return self.images.shape[1]

    @property
    def device(self) -> torch.device:
        return self.images.device

    @property
    def camera(self) -> Tensor:
        """[B, V, H, W, 3] points in each view's own camera, 0 where not valid."""
        depth = torch.where(self.valid, self.depth, 0.0)  # an invalid NaN or infinity must not reach a gradient
        lens = self.lens
        points = unproject(depth, self.K, lens)
        turned = self.turned
        if bool(turned.any()):
            upright = unproject(depth.mT, self.K, lens).transpose(2, 3)
            points = torch.where(turned[..., None, None, None].to(points.device), upright, points)
        return points

    @property
    def lens(self) -> Tensor | None:
        """[B, V, 2] ``distortion`` on the batch's device; None where all cameras are pinholes."""
        return self.distortion.to(self.K) if bool(self.distortion.any()) else None

    @property
    def turned(self) -> Tensor:
        """[B, V] bool: stored transposed."""
        size = self.true_shape.new_tensor(self.images.shape[-2:])
        return (self.true_shape != size).any(-1) & (self.true_shape.flip(-1) == size).all(-1)

    def points_in(self, frame: Tensor) -> Tensor:
        """[B, V, H, W, 3] points in the frame of cameras [B, 4, 4]; what is not valid is anything finite."""
        return apply(relative_pose(self.c2w, frame.unsqueeze(1)), self.camera)

    @property
    def reference(self) -> Tensor:
        """[B, 4, 4] camera-to-world of the reference view."""
        return self.c2w[:, self.roles.reference]

    def samples(self, rows: slice | Tensor) -> Self:
        """Some of the samples."""
        names = self.sources
        if names:
            kept = range(len(self))[rows] if isinstance(rows, slice) else rows.tolist()
            names = tuple(names[int(i)] for i in kept)
        chosen: dict[str, Any] = {
            # sizes and lenses stay on the CPU, whatever device the rest is on
            name: tensor[rows if isinstance(rows, slice) else rows.to(tensor.device)]
            for name, tensor in self._tensors().items()
        }
        return replace(self, **chosen, sources=names)

    def of_views(self, views: Sequence[int], roles: Roles) -> Self:
        """Some of the views, in the order of ``views``; ``roles`` counts the chosen ones."""
        chosen: dict[str, Any] = {
            name: tensor[:, list(views)] for name, tensor in self._tensors().items() if name in _OF_VIEWS
        }
        return replace(self, **chosen, roles=roles)

    def with_world_of(self, view: int, roles: Roles) -> Self:
        """Without ``view``, whose camera becomes the world (SLAM3R, section 3.3); ``roles`` counts the others."""
        rest = [v for v in range(self.views) if v != view]
        return replace(self.of_views(rest, roles), world=self.c2w[:, view])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """On another device; sizes and lenses stay on the CPU, where they are asked without waiting."""
        moved: dict[str, Any] = {
            name: tensor if name in _ON_CPU else tensor.to(device, non_blocking=non_blocking)
            for name, tensor in self._tensors().items()
        }
        return replace(self, **moved)

    def pin_memory(self) -> Self:
        """In page-locked memory; torch's DataLoader asks for it."""
        pinned: dict[str, Any] = {name: tensor.pin_memory() for name, tensor in self._tensors().items()}
        return replace(self, **pinned)

    def _tensors(self) -> dict[str, Tensor]:
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in named.items() if isinstance(value, Tensor)}


_OF_VIEWS = frozenset(("images", "depth", "valid", "c2w", "K", "distortion", "true_shape", "sky", "seen", "rays"))
_ON_CPU = frozenset(("distortion", "true_shape"))


def cat(batches: Sequence[Batch]) -> Batch:
    """One batch of all samples: what a data loader uses to collate. Raises ValueError when they do not fit."""
    if not batches:
        raise ValueError("nothing to put into a batch")
    first = batches[0]
    for other in batches[1:]:
        if other.images.shape[1:] != first.images.shape[1:] or other.roles != first.roles:
            raise ValueError(
                f"samples of {other.views} views {list(other.images.shape[-2:])} {other.roles} do not fit "
                f"{first.views} views {list(first.images.shape[-2:])} {first.roles}"
            )
    parts = [b._tensors() for b in batches]
    joined: dict[str, Any] = {name: torch.cat([p[name] for p in parts]) for name in parts[0]}
    named = all(b.sources for b in batches)
    return replace(first, **joined, sources=tuple(s for b in batches for s in b.sources) if named else ())
