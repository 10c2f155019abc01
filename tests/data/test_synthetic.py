"""The generated rooms: geometry must be exact, because everything that is trained or shown rests on it."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from threer.data.synthetic import WALK, ClipStyle, render_clip, render_clips
from threer.data.synthetic.photometric import augment
from threer.data.synthetic.raycast import blocked, cast, clearance
from threer.data.synthetic.rooms import BOX, CYLINDER, MAX_PARTS, SPHERE, Rooms, sample_room, stack_rooms
from threer.data.synthetic.textures import LEVELS, texture_bank
from threer.geometry.projection import project, unproject
from threer.geometry.transforms import apply, relative_pose

PLAIN = ClipStyle(colour=0.0)
SEEDS = range(20, 26)
# of clips 3 and 12, two frames of 48×32, before rooms could be lived in: mean colour, depth, pose and K; deviation
# of the last frame's colours
AS_THEY_WERE = {
    "default": (
        ClipStyle(),
        [[0.69207, 2.55506, 0.01001, 18.28282, 0.18729], [0.45915, 2.71928, 0.16146, 13.9164, 0.11575]],
    ),
    "walk": (
        WALK,
        [[0.5616, 3.02286, 0.00414, 13.68205, 0.13231], [0.32528, 2.4316, 0.28224, 13.68205, 0.06316]],
    ),
}


@pytest.fixture(scope="module")
def clips():  # type: ignore[no-untyped-def]
    return render_clips(SEEDS, 6, (64, 48), PLAIN)


def rays_from_middle(room: Rooms, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Bundles of 9 rays in 60 random directions from a clear point."""
    generator = torch.Generator().manual_seed(seed)
    spots = (torch.rand(1, 400, 3, generator=generator) * 2 - 1) * (room.size - 0.2)
    clear = spots[0, clearance(room, torch.zeros(1, dtype=torch.long), spots)[0] > 0.1]
    origin = clear[0].expand(60, 3)
    axis = F.normalize(torch.randn(60, 1, 3, generator=generator), dim=-1)
    return origin, axis + 0.1 * torch.randn(60, 9, 3, generator=generator)


@pytest.mark.parametrize("seed", SEEDS)
def test_rays_stop_exactly_at_the_first_surface(seed: int) -> None:
    """Distances agree with the signed distance field, which is computed another way."""
    room = sample_room(seed)
    origin, direction = rays_from_middle(room, seed)
    which = torch.zeros(60, dtype=torch.long)
    hits = cast(room, which, origin, direction)
    ends = origin.unsqueeze(1) + hits.distance.unsqueeze(-1) * direction
    assert clearance(room, which, ends).abs().max() < 2e-3
    for share in torch.linspace(0.05, 0.97, 24):
        on_the_way = origin.unsqueeze(1) + share * hits.distance.unsqueeze(-1) * direction
        assert clearance(room, which, on_the_way).min() > 0


def test_hits_name_the_part_that_was_hit() -> None:
    """One part of each kind in front of the camera, and the wall behind."""
    room = lonely_room([(BOX, -1.0), (CYLINDER, 0.0), (SPHERE, 1.0)])
    direction = torch.tensor([[[-1.0, 0, 2], [0, 0, 2], [1.0, 0, 2], [0, 1, 0.0]]])
    hits = cast(room, torch.zeros(1, dtype=torch.long), torch.zeros(1, 3), direction)
    assert hits.part.tolist() == [[0, 1, 2, MAX_PARTS + 3]]
    # box front at z = 1.8; cylinder and sphere of radius 0.2 around z = 2
    sphere = 1 - 0.2 / math.sqrt(5)
    torch.testing.assert_close(hits.distance, torch.tensor([[0.9, 0.9, sphere, 1.5]]))


def test_shadows_fall_behind_things_only() -> None:
    room = lonely_room([(BOX, 0.0)])
    start = torch.tensor([[[0.0, 0, 1], [2.0, 0, 1]]])
    goal = torch.tensor([[0.0, 0, 3.0]])
    assert blocked(room, torch.zeros(1, dtype=torch.long), start, goal).tolist() == [[True, False]]


def lonely_room(parts: list[tuple[int, float]]) -> Rooms:
    """A 6 × 3 × 8 m room with parts of half size 0.2 at (x, 0, 2)."""
    room = sample_room(0)
    room.size[:] = torch.tensor([3.0, 1.5, 4.0])
    room.radius.zero_()
    for i, (kind, x) in enumerate(parts):
        room.kind[0, i] = kind
        room.centre[0, i] = torch.tensor([x, 0.0, 2.0])
        room.rotation[0, i] = torch.eye(3)
        room.half[0, i] = 0.2
        room.radius[0, i] = 0.4
    return room


def test_frames_see_the_same_surfaces(clips) -> None:  # type: ignore[no-untyped-def]
    """Depth of one frame, carried into another, lies on that frame's surface or is hidden behind it."""
    for index in range(len(clips)):
        clip = clips.clip(index)
        points = apply(relative_pose(clip.c2w[0], clip.c2w[3]), unproject(clip.depth[0], clip.K[0]))
        pixel = project(points, clip.K[3])
        height, width = clip.depth.shape[1:]
        inside = (pixel > 0).all(-1) & (pixel[..., 0] < width - 1) & (pixel[..., 1] < height - 1)
        assert inside.float().mean() > 0.3
        grid = pixel / torch.tensor([(width - 1) / 2, (height - 1) / 2]) - 1
        seen = F.grid_sample(clip.depth[3][None, None], grid[None], align_corners=True)[0, 0]
        ratio = (points[..., 2] / seen)[inside]
        assert (ratio > 0.97).float().mean() > 0.96, "points float in front of what the other frame sees"
        assert ((ratio - 1).abs() < 0.02).float().mean() > 0.6


def test_cameras_are_rigid_and_keep_clear(clips) -> None:  # type: ignore[no-untyped-def]
    rotation = clips.c2w[..., :3, :3]
    torch.testing.assert_close(rotation.mT @ rotation, torch.eye(3).expand_as(rotation), atol=1e-5, rtol=0)
    assert torch.linalg.det(rotation).min() > 0.99
    rooms = stack_rooms([sample_room(s) for s in SEEDS])
    assert clearance(rooms, torch.arange(len(rooms)), clips.c2w[..., :3, 3]).min() > 0.15
    assert (rotation[..., 1, 1] > 0.5).all(), "down stays down"


def test_all_points_lie_in_the_room(clips) -> None:  # type: ignore[no-untyped-def]
    world = apply(clips.c2w, unproject(clips.depth, clips.K))
    for seed, points in zip(SEEDS, world, strict=True):
        assert (points.abs() <= sample_room(seed).size + 2e-3).all()
    assert clips.depth.min() > 0.05


def test_a_seed_fixes_the_clip_whatever_it_is_rendered_with(clips) -> None:  # type: ignore[no-untyped-def]
    alone = render_clips([SEEDS[2]], 6, (64, 48), PLAIN)
    torch.testing.assert_close(alone.depth[0], clips.depth[2], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(alone.images[0], clips.images[2], atol=1e-3, rtol=0)
    again = render_clips([SEEDS[2]], 6, (64, 48), PLAIN)
    assert torch.equal(alone.images, again.images)
    assert not torch.allclose(clips.depth[1], clips.depth[2])


@pytest.mark.parametrize("name", AS_THEY_WERE)
def test_clips_of_plain_rooms_stay_as_they_were(name: str) -> None:
    style, stored = AS_THEY_WERE[name]
    clips = render_clips([3, 12], 2, (48, 32), style)
    for index, expected in enumerate(stored):
        clip = clips.clip(index)
        found = [float(x.double().mean()) for x in (clip.images, clip.depth, clip.c2w, clip.K)]
        assert [*found, float(clip.images[-1].std())] == pytest.approx(expected, abs=2e-4)


def test_intrinsics_follow_the_field_of_view() -> None:
    clip = render_clip(3, 2, (32, 24), ClipStyle(fov=(60.0, 60.0)))
    K = clip.K[1]
    assert K[0, 2] == 15.5
    assert K[1, 2] == 11.5
    assert math.degrees(2 * math.atan(16 / float(K[0, 0]))) == pytest.approx(60)
    assert clip.images.shape == (2, 3, 24, 32)


def test_antialiasing_keeps_depth_and_softens_edges() -> None:
    style = ClipStyle(colour=0.0)
    plain = render_clip(3, 1, (64, 48), style)
    smooth = render_clip(3, 1, (64, 48), ClipStyle(colour=0.0, antialias=True))
    assert torch.equal(plain.depth, smooth.depth)
    assert smooth.images.diff(dim=-1).abs().mean() < plain.images.diff(dim=-1).abs().mean()
    assert (smooth.images - plain.images).abs().mean() < 0.02


def test_sizes_that_do_not_fit_the_tiles_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 8"):
        render_clip(0, 1, (100, 64))


def test_textures_wrap_and_fade_to_their_mean() -> None:
    bank = texture_bank()
    generator = torch.Generator().manual_seed(0)
    index = torch.arange(40)
    uv = torch.rand(40, 2, generator=generator)
    sharp = bank.sample(index, uv, torch.zeros(40))
    torch.testing.assert_close(
        bank.sample(index, uv + torch.tensor([3.0, -2.0]), torch.zeros(40)), sharp, atol=1e-3, rtol=0
    )
    coarse = bank.sample(index, uv, torch.full((40,), float(LEVELS)))
    torch.testing.assert_close(coarse, bank.texels[:40, : bank.starts[1]].mean(1), atol=1e-4, rtol=0)
    assert (sharp - coarse).abs().mean() > 0.05


def test_augmentation_changes_colours_within_bounds() -> None:
    images = torch.rand(2, 3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    same = augment(images, torch.Generator().manual_seed(2), strength=0.0)
    torch.testing.assert_close(same, images, atol=1e-5, rtol=0)
    changed = augment(images, torch.Generator().manual_seed(2))
    assert torch.equal(changed, augment(images, torch.Generator().manual_seed(2)))
    assert (changed - images).abs().mean() > 0.02
    assert changed.min() >= 0
    assert changed.max() <= 1
