"""Ray maps: a camera as an image of rays, the way CUT3R takes them in (Wang et al., CVPR 2025)."""

from __future__ import annotations

import torch
from torch import Tensor

from threer.geometry.projection import rays


def ray_map(
    c2w: Tensor,
    K: Tensor,
    size: tuple[int, int],
    true_directions: bool = False,
    distortion: Tensor | None = None,
) -> Tensor:
    """The camera c2w [..., 4, 4], seen from the first camera, and K [..., 3, 3] as a picture [..., H, W, 6].

    size        (W, H) in pixels of K
    distortion  [..., 2] k1, k2 of `threer.geometry.lens`, or None for a pinhole

    Channels 0 to 2 are the camera's centre t. Channels 3 to 5 are what the published weights expect in place of the
    ray's direction: the unit vector from the *first* camera to the point at depth 1 on the ray, that is
    R K⁻¹ (u, v, 1) + t normalised (quirk C1). With ``true_directions`` they are the ray's direction, without t, for
    networks trained that way.
    """
    if c2w.shape[-2:] != (4, 4) or K.shape[-2:] != (3, 3) or c2w.shape[:-2] != K.shape[:-2]:
        raise ValueError(f"c2w and K must be [..., 4, 4] and [..., 3, 3], got {list(c2w.shape)}, {list(K.shape)}")
    width, height = size
    centre = c2w[..., None, None, :3, 3]
    direction = rays(K, height, width, distortion) @ c2w[..., None, :3, :3].mT  # [..., H, W, 3]
    towards = torch.nn.functional.normalize(direction if true_directions else direction + centre, dim=-1)
    return torch.cat((centre.expand_as(towards), towards), dim=-1)
