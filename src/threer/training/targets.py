"""What Local-to-World is fed and what it is compared with."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from threer.geometry.scale import normalize


@dataclass(frozen=True, eq=False)
class RegistrationSample:
    """Input and truth of Local-to-World for B samples of R scene frames and K key frames.

    scene   [B, R, H, W, 3] world points divided by their joint mean distance, 0 where invalid
    keys    [B, K, H, W, 3] points in each key frame's camera, each divided by its mean distance, 0 where invalid
    truth   [B, R + K, H, W, 3] world points divided by the scene frames' factor
    valid   [B, R + K, H, W]
    factor  [B] the scene frames' factor
    """

    scene: Tensor
    keys: Tensor
    truth: Tensor
    valid: Tensor
    factor: Tensor


def registration_sample(world: Tensor, camera: Tensor, valid: Tensor, scene_views: int) -> RegistrationSample:
    """Normalise the inputs of Local-to-World (SLAM3R, section 3.3).

    The first ``scene_views`` views are scene frames.

    world   [B, V, H, W, 3] points in the world frame of the sample
    camera  [B, V, H, W, 3] the same points in each view's own camera
    valid   [B, V, H, W] bool
    """
    if not 0 < scene_views < world.shape[1]:
        raise ValueError(f"of {world.shape[1]} views, {scene_views} cannot be scene frames: keep at least one key")
    scene, factor = normalize(world[:, :scene_views], valid[:, :scene_views], zero_invalid=True)
    # every key frame alone: views become samples of one view
    keys, _ = normalize(
        camera[:, scene_views:].unsqueeze(2), valid[:, scene_views:].unsqueeze(2), zero_invalid=True
    )
    truth = world / factor[:, None, None, None, None]
    return RegistrationSample(scene, keys.squeeze(2), truth, valid, factor)
