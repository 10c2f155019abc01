"""What makes rich rooms quick to render, against the slower way to the same pictures."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from threer.data.synthetic import ClipStyle, render_clips
from threer.data.synthetic.edges import smooth_edges
from threer.data.synthetic.light import main_lamp, openness
from threer.data.synthetic.quads import light_of_quads
from threer.data.synthetic.raycast import blocked, cast, first_of
from threer.data.synthetic.room_style import LIVED_IN
from threer.data.synthetic.rooms import Rooms, sample_room
from threer.data.synthetic.shading import Bundles, shade
from threer.data.synthetic.textures import texture_bank
from threer.data.synthetic.tiles import Views, to_frames, to_tiles

SIZE = (64, 48)


@pytest.fixture(scope="module")
def views() -> Views:
    """Three directions from the middle of a room, through a bent lens."""
    turn = torch.tensor([0.0, 2.0, 4.0])
    c2w = torch.eye(4).repeat(3, 1, 1)
    c2w[:, 0, 0] = c2w[:, 2, 2] = turn.cos()
    c2w[:, 0, 2], c2w[:, 2, 0] = turn.sin(), -turn.sin()
    K = torch.tensor([[40.0, 0, 31], [0, 40, 24], [0, 0, 1]]).repeat(3, 1, 1)
    return Views(SIZE, c2w, K, torch.tensor([[0.05, 0.0]]).repeat(3, 1))


@pytest.fixture(scope="module")
def room() -> Rooms:
    return sample_room(14, LIVED_IN)


def test_tiles_and_frames_are_the_same_pixels(views: Views) -> None:
    rays = to_frames(views.rays(), SIZE)
    assert torch.equal(to_tiles(rays), views.rays())
    frame, place = torch.tensor([0, 1, 2]), torch.tensor([[[3, 4], [60, 47]]]).expand(3, 2, 2)
    picked = torch.stack([rays[:, 4, 3], rays[:, 47, 60]], dim=1)
    torch.testing.assert_close(views.rays_at(frame, place), picked)


def test_light_of_quads_is_about_that_of_every_pixel(room: Rooms, views: Views) -> None:
    tiles = views.of_tiles(torch.zeros(3, dtype=torch.int64))
    origin, rays = views.of_tiles(views.c2w[:, :3, 3]), views.rays()
    hits = cast(room, tiles, origin, rays)
    points = origin.unsqueeze(1) + hits.distance.unsqueeze(-1) * rays
    faces = (hits.part - room.kind.shape[1]).clamp(min=0)
    inward = -F.one_hot(faces // 2, 3) * (2.0 * (faces % 2) - 1).unsqueeze(-1)  # right for walls, floor and ceiling
    walls = hits.part >= room.kind.shape[1]
    reached, open_ = light_of_quads(room, tiles, points, inward, hits.part, SIZE)
    exact = main_lamp(room, tiles, points, inward), openness(room, tiles, points, inward)
    assert 0.05 < exact[0][walls].mean() < 0.95, "there are shadows"
    for quick, slow in zip((reached, open_), exact, strict=True):
        assert (quick - slow)[walls].abs().mean() < 0.04
        assert abs(float((quick - slow)[walls].mean())) < 0.008
    assert reached.min() >= 0
    assert max(reached.max(), open_.max()) <= 1 + 1e-5


def test_a_surface_that_no_quad_looks_at_has_its_own_light(room: Rooms, views: Views) -> None:
    """One odd pixel of another part: neighbours in the shade do not darken it."""
    tiles = views.of_tiles(torch.zeros(3, dtype=torch.int64))
    points = torch.rand(len(tiles), 64, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    normal = F.normalize(room.lamp[0, 0] - points, dim=-1)
    part = torch.zeros(len(tiles), 64, dtype=torch.int64)
    part[7, 9] = 1
    reached, open_ = light_of_quads(room, tiles, points, normal, part, SIZE)
    alone, up = points[7:8, 9:10], normal[7:8, 9:10]
    assert reached[7, 9] == main_lamp(room, tiles[7:8], alone, up)
    assert open_[7, 9] == openness(room, tiles[7:8], alone, up)


def test_pictures_of_quads_are_about_those_of_pixels(room: Rooms, views: Views) -> None:
    tiles = views.of_tiles(torch.zeros(3, dtype=torch.int64))
    origin, pixel = views.of_tiles(views.c2w[:, :3, 3]), torch.full((len(tiles),), 1 / 40)
    rays = Bundles(tiles, origin, views.rays(), pixel)
    hits, bank = cast(room, tiles, origin, rays.direction), texture_bank()
    quick = shade(room, bank, rays, hits, SIZE).clamp(0, 2)
    slow = shade(room, bank, rays, hits).clamp(0, 2)
    assert (quick - slow).abs().mean() < 0.035 * slow.mean()
    assert not torch.equal(quick, slow)


def test_smooth_edges_are_about_those_of_four_rays_a_pixel() -> None:
    styles = [
        ClipStyle(colour=0.0, antialias=a, room=replace(LIVED_IN, clutter=0.5)) for a in (False, "edges", True)
    ]
    rough, quick, slow = (render_clips([5], 1, (48, 32), style) for style in styles)
    assert torch.equal(quick.depth, rough.depth)
    wrong = [(clip.images - slow.images).square().mean() for clip in (rough, quick)]
    assert wrong[1] < 0.4 * wrong[0]


def test_pixels_at_edges_have_each_surface_by_its_share(room: Rooms, views: Views) -> None:
    """Where every surface has a colour of its own, that is the mean over the rays beside the centre."""
    offsets = ((-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25))
    which, tiles = torch.zeros(3, dtype=torch.int64), views.of_tiles(torch.zeros(3, dtype=torch.int64))
    origin = views.of_tiles(views.c2w[:, :3, 3])

    def parts(offset: tuple[float, float] = (0.0, 0.0)) -> torch.Tensor:
        return to_frames(cast(room, tiles, origin, views.rays(offset)).part.unsqueeze(-1), SIZE).squeeze(-1)

    colours = torch.rand(room.kind.shape[1] + 6, 3, generator=torch.Generator().manual_seed(0))
    centre, beside = parts(), torch.stack([parts(offset) for offset in offsets])
    smooth = smooth_edges(room, which, views, centre, colours[centre], offsets)
    exact = colours[beside].mean(0)
    around = F.pad(centre.unsqueeze(0), (1, 1, 1, 1), value=-1).squeeze(0)
    shown = torch.stack(
        [around[:, 1:-1, :-2], around[:, 1:-1, 2:], around[:, :-2, 1:-1], around[:, 2:, 1:-1], centre]
    )
    known = (beside.unsqueeze(1) == shown).any(1).all(0)  # a ray can also meet what no pixel around shows
    mixed = (beside != centre).any(0)
    assert 0.02 < (mixed & known).float().mean() < 0.5
    right = (smooth - exact).abs().amax(-1) < 1e-5
    assert right[~mixed & known].float().mean() > 0.999  # surfaces in one plane are exactly as far
    assert right[mixed & known].float().mean() > 0.98


def test_a_few_parts_are_met_in_the_order_of_all(room: Rooms, views: Views) -> None:
    tiles = views.of_tiles(torch.zeros(3, dtype=torch.int64))
    origin, rays = views.of_tiles(views.c2w[:, :3, 3]), views.rays()
    part = cast(room, tiles, origin, rays).part
    several = part.amin(1) != part.amax(1)
    few = torch.stack([part[several].amin(1), part[several].amax(1), torch.full((int(several.sum()),), -1)], dim=1)
    first = first_of(room, tiles[several], few, origin[several], rays[several])
    met = few.gather(1, first)
    known = (part[several].unsqueeze(1) == few.unsqueeze(2)).any(1)
    assert known.any()
    assert torch.equal(met[known], part[several][known])


def test_what_is_blocked_is_what_a_ray_meets(room: Rooms, views: Views) -> None:
    """Also for bundles to several goals, which are culled by spheres and boxes."""
    tiles = views.of_tiles(torch.zeros(3, dtype=torch.int64))
    start = views.of_tiles(views.c2w[:, :3, 3]).unsqueeze(1).expand(-1, 64, -1)
    goal = start + 1.5 * views.rays()
    alone = cast(room, tiles.repeat_interleave(64), start.flatten(0, 1), (goal - start).flatten(0, 1).unsqueeze(1))
    solid = alone.part.flatten() < room.kind.shape[1]
    expected = (solid & (alone.distance.flatten() < 1)).view(len(tiles), 64)
    assert 0.05 < expected.float().mean() < 0.95
    assert torch.equal(blocked(room, tiles, start, goal), expected)
