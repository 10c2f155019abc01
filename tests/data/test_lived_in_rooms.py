"""Rich rooms: what they add must not cost exactness, and plain rooms must stay what they were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from threer.data.synthetic.light import main_lamp, openness
from threer.data.synthetic.photographs import photographs_in
from threer.data.synthetic.placing import BOX
from threer.data.synthetic.raycast import cast, clearance, gap_within
from threer.data.synthetic.room_style import LIVED_IN, PLAIN, RoomStyle
from threer.data.synthetic.rooms import MAX_PARTS, Rooms, sample_room, stack_rooms
from threer.data.synthetic.shading import Bundles, shade
from threer.data.synthetic.textures import COUNT, TextureBank, texture_bank
from threer.errors import SourceError

# sums of the plain rooms 0, 7 and 40 before there were others: centres, rotations, colours, lamps, power
PLAIN_SUMS = {
    0: [16.76546, -48.78645, 170.51115, 0.19527, 6.76316],
    7: [72.90437, -25.45635, 169.87785, -6.09442, 9.9448],
    40: [94.10026, -21.9169, 216.66822, 1.55212, 7.49786],
}
ALONE = torch.zeros(1, dtype=torch.long)


@pytest.mark.parametrize("seed", PLAIN_SUMS)
def test_plain_rooms_are_what_they_always_were(seed: int) -> None:
    room = sample_room(seed)
    used = room.radius[0] > 0
    faces = torch.cat([used, torch.ones(6, dtype=torch.bool)])
    columns = (room.centre[0, used], room.rotation[0, used], room.colours[0, faces], room.lamp, room.power)
    assert [float(c.double().sum()) for c in columns] == pytest.approx(PLAIN_SUMS[seed], abs=1e-4)
    assert room.kind.shape == (1, MAX_PARTS)
    assert not room.rich


def bundles(room: Rooms, seed: int, count: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    """Bundles of 16 rays in random directions from a clear point."""
    generator = torch.Generator().manual_seed(seed)
    spots = (torch.rand(1, 400, 3, generator=generator) * 2 - 1) * (room.size - 0.15)
    clear = spots[0, clearance(room, ALONE, spots)[0] > 0.1]
    axis = F.normalize(torch.randn(count, 1, 3, generator=generator), dim=-1)
    return clear[0].expand(count, 3), axis + 0.1 * torch.randn(count, 16, 3, generator=generator)


def looks(room: Rooms, seed: int, bank: TextureBank) -> torch.Tensor:
    origin, direction = bundles(room, seed)
    which = torch.zeros(len(origin), dtype=torch.long)
    pixel = torch.full((len(origin),), 0.01)
    hits = cast(room, which, origin, direction)
    return shade(room, bank, Bundles(which, origin, direction, pixel), hits)


@pytest.mark.parametrize("seed", range(6))
def test_rays_stop_exactly_at_the_first_surface(seed: int) -> None:
    room = sample_room(seed, LIVED_IN)
    origin, direction = bundles(room, seed)
    which = torch.zeros(len(origin), dtype=torch.long)
    hits = cast(room, which, origin, direction)
    ends = origin.unsqueeze(1) + hits.distance.unsqueeze(-1) * direction
    assert clearance(room, which, ends).abs().max() < 3e-3
    for share in torch.linspace(0.05, 0.97, 12):
        on_the_way = origin.unsqueeze(1) + share * hits.distance.unsqueeze(-1) * direction
        assert clearance(room, which, on_the_way).min() > 0


def test_clearance_is_the_smallest_distance_to_anything() -> None:
    """Against each primitive tested on its own, which leaves nothing to cull."""
    room = sample_room(5, RoomStyle(clutter=0.1))
    points = (torch.rand(1, 60, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1) * room.size
    apart = []
    for part in (room.radius[0] > 0).nonzero().flatten():
        radius = torch.zeros_like(room.radius)
        radius[0, part] = room.radius[0, part]
        apart.append(clearance(replace(room, radius=radius), ALONE, points))
    nearest = clearance(room, ALONE, points)
    torch.testing.assert_close(nearest, torch.stack(apart).amin(0))
    gap = gap_within(room, ALONE, points, 0.2)
    torch.testing.assert_close(gap.clamp(max=0.2), nearest.clamp(max=0.2))


def test_a_seed_and_a_style_fix_the_room_and_its_colours() -> None:
    bank = texture_bank()
    first, again = sample_room(3, LIVED_IN), sample_room(3, LIVED_IN)
    assert torch.equal(first.centre, again.centre)
    assert torch.equal(looks(first, 3, bank), looks(again, 3, bank))
    assert not torch.equal(sample_room(4, LIVED_IN).size, first.size)


def test_a_room_looks_the_same_whatever_it_is_stacked_with() -> None:
    """Also with rooms of more primitives and of another style."""
    bank, room = texture_bank(), sample_room(2, replace(LIVED_IN, clutter=0.3))
    other = sample_room(1, replace(LIVED_IN, shadows="hard", bounce=0.0))
    crowd = stack_rooms([sample_room(1, LIVED_IN), room, other])
    origin, direction = bundles(room, 2)
    which, pixel = torch.ones(len(origin), dtype=torch.long), torch.full((len(origin),), 0.01)
    hits = cast(crowd, which, origin, direction)
    seen = shade(crowd, bank, Bundles(which, origin, direction, pixel), hits)
    torch.testing.assert_close(seen, looks(room, 2, bank), atol=1e-4, rtol=1e-3)
    faces = hits.part >= crowd.kind.shape[1]
    alone = cast(room, torch.zeros_like(which), origin, direction)
    torch.testing.assert_close(hits.distance, alone.distance)
    assert torch.equal(hits.part[faces] - crowd.kind.shape[1], alone.part[faces] - room.kind.shape[1])
    with pytest.raises(ValueError, match="stack them apart"):
        stack_rooms([room, sample_room(1)])


def test_clutter_fills_rooms() -> None:
    """More of it, more primitives and thinner ones; never more than the style allows."""
    counts, thin = [], []
    for clutter in (0.0, 0.4, 1.0):
        rooms = [sample_room(seed, RoomStyle(clutter=clutter)) for seed in range(20)]
        used = [r.radius[0] > 0 for r in rooms]
        counts.append(np.mean([int(u.sum()) for u in used]))
        thin.append(np.mean([int((r.half[0, u].amin(-1) < 0.01).sum()) for r, u in zip(rooms, used, strict=True)]))
    assert counts[0] < 0.6 * counts[1] < 0.6 * counts[2]
    assert counts[2] < 353
    assert thin[2] > 40


def test_varied_rooms_reach_from_closets_to_open_floors() -> None:
    sizes = torch.cat([sample_room(seed, RoomStyle(varied=True)).size for seed in range(200)]) * 2
    floor = sizes[:, [0, 2]]
    assert floor.amax(1).min() < 3.2
    assert floor.amax() > 10
    assert ((floor.amax(1) / floor.amin(1)) > 2.5).float().mean() > 0.04, "corridors"
    assert sizes[:, 1].min() >= 2.3 - 1e-5
    assert sizes[:, 1].max() <= 3.4 + 1e-5


def bare(style: RoomStyle = LIVED_IN) -> Rooms:
    """A 6 × 3 × 8 m room with nothing in it, one lamp in the middle of the ceiling, no ambient light."""
    room = sample_room(0, style)
    room.size[:] = torch.tensor([3.0, 1.5, 4.0])
    for column in (room.radius, room.glow, room.mirror, room.sheen, room.gloss, room.power, room.ambient):
        column.zero_()
    room.lamp[:] = torch.tensor([0.0, -1.3, 2.0])
    room.power[:, 0] = 2.0
    room.falloff[:] = 0.1
    return room


def put_box(room: Rooms, index: int, centre: tuple[float, ...], half: tuple[float, ...]) -> None:
    room.kind[0, index] = BOX
    room.centre[0, index], room.half[0, index] = torch.tensor(centre), torch.tensor(half)
    room.rotation[0, index] = torch.eye(3)
    room.radius[0, index] = room.half[0, index].norm()


def test_a_mirror_has_its_own_depth_and_shows_the_room_behind_the_viewer() -> None:
    room, bank = bare(), texture_bank()
    put_box(room, 0, (0.0, 0.0, 3.9), (1.0, 1.0, 0.1))
    room.mirror[0, 0] = 1.0
    origin = torch.tensor([[0.0, 0.0, 0.5]])
    forward = torch.tensor([[[0.02, 0.01, 1.0], [0.2, -0.05, 1.0]]])
    hits = cast(room, ALONE, origin, forward)
    torch.testing.assert_close(hits.distance, torch.full((1, 2), 3.3))
    assert (hits.part == 0).all()
    pixel = torch.full((1,), 0.01)
    shown = shade(room, bank, Bundles(ALONE, origin, forward, pixel), hits)
    room.mirror[0, 0] = 0.0
    bare_wood = shade(room, bank, Bundles(ALONE, origin, forward, pixel), hits)
    room.mirror[0, 0] = 0.25
    polished = shade(room, bank, Bundles(ALONE, origin, forward, pixel), hits)
    torch.testing.assert_close(polished, torch.lerp(bare_wood, shown, 0.25))
    # what an eye behind the glass would see without it
    behind = torch.tensor([[0.0, 0.0, 2 * 3.8 - 0.5]])
    back = forward * torch.tensor([1.0, 1.0, -1.0])
    room.radius.zero_()
    for ray in range(2):
        at = behind + 3.3 * back[:, ray]  # on the glass
        onward = Bundles(ALONE, at, back[:, ray : ray + 1], 2 * pixel)
        seen = shade(room, bank, onward, cast(room, ALONE, at, onward.direction))
        torch.testing.assert_close(shown[:, ray], seen[:, 0], atol=1e-3, rtol=1e-2)


def test_soft_shadows_have_a_penumbra_and_hard_ones_have_none() -> None:
    room = bare()
    put_box(room, 0, (0.0, 0.3, 2.0), (0.4, 0.02, 0.4))
    steps = torch.linspace(0.0, 1.6, 63)  # no square of pixels: nothing is shared with neighbours
    points = torch.stack([steps, torch.full_like(steps, 1.5), torch.full_like(steps, 2.0)], dim=-1).unsqueeze(0)
    up = torch.tensor([0.0, -1.0, 0.0]).expand_as(points)
    room.disc[:] = 0.6
    soft = main_lamp(room, ALONE, points, up).flatten()
    room.disc[:] = 0.0
    hard = main_lamp(room, ALONE, points, up).flatten()
    assert soft[0] == hard[0] == 0, "in the umbra"
    assert soft[-1] == hard[-1] == 1
    assert blurred(soft) > 8
    assert blurred(hard) < 1


def blurred(share: torch.Tensor) -> int:
    """Steps between the first point that some light reaches and the last that not all of it does."""
    return int((share < 1).nonzero().max()) - int((share > 0).nonzero().min())


def test_it_is_darker_where_surfaces_meet() -> None:
    room = bare()
    put_box(room, 0, (0.0, 1.2, 2.0), (0.3, 0.3, 0.3))
    points = torch.tensor([[[0.31, 1.5, 2.0], [0.4, 1.5, 2.0], [1.5, 1.5, 2.0]]])
    open_ = openness(room, ALONE, points, torch.tensor([0.0, -1.0, 0.0]).expand_as(points)).flatten()
    assert open_[0] < open_[1] < open_[2] == 1


def test_walls_colour_the_light_near_them() -> None:
    room, bank = bare(), texture_bank()
    room.ambient[:] = 0.3
    room.texture[:] = 0
    room.colours[:] = 0.5
    count = room.kind.shape[1]
    room.colours[0, count] = torch.tensor([0.8, 0.1, 0.1])  # the wall at -x is red
    origin = torch.tensor([[0.0, -0.5, 0.0]])
    floor = torch.tensor([[[-2.8, 2.0, 0.0], [2.8, 2.0, 0.0]]])
    hits = cast(room, ALONE, origin, floor)
    assert (hits.part == count + 3).all()
    near, far = shade(room, bank, Bundles(ALONE, origin, floor, torch.full((1,), 0.01)), hits)[0]
    assert near[0] / near[1] > 1.1 * far[0] / far[1]


def test_photographs_show_their_colours(tmp_path: Path) -> None:
    for name, colour in (("a", (200, 40, 40)), ("b", (40, 40, 200))):
        Image.new("RGB", (40, 30), colour).save(tmp_path / f"{name}.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    paths = photographs_in(tmp_path)
    assert [Path(p).name for p in paths] == ["a.png", "b.png"]
    bank = texture_bank(photographs=paths)
    uv, level = torch.rand(2, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0.0, 9.0])
    seen = bank.colour(torch.tensor([COUNT, COUNT + 1]), uv, level, torch.full((2, 3, 3), 0.3))
    assert seen[0, 0] > 10 * seen[0, 2]
    assert seen[1, 2] > 10 * seen[1, 0]
    torch.testing.assert_close(bank.mean_colour(torch.tensor([COUNT]), torch.full((1, 3, 3), 0.3)), seen[:1])
    drawn = torch.arange(2)
    plain = texture_bank().colour(drawn, uv, level, torch.rand(2, 3, 3))
    assert plain.shape == (2, 3)
    rooms = [sample_room(seed, replace(LIVED_IN, photographs=paths)) for seed in range(6)]
    shown = torch.cat([r.texture.flatten() for r in rooms]) >= COUNT
    assert 0.05 < shown.float().mean() < 0.6
    assert looks(rooms[0], 0, bank).isfinite().all()


def test_texture_folders_that_cannot_be_used_say_so(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such folder of textures"):
        photographs_in(tmp_path / "nowhere")
    with pytest.raises(SourceError, match="no image to use as a texture"):
        photographs_in(tmp_path)
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    with pytest.raises(SourceError, match=r"broken\.jpg"):
        texture_bank(photographs=photographs_in(tmp_path))


def test_styles_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"RoomStyle\.clutter must lie in 0\.\.1, got 2"):
        RoomStyle(clutter=2)
    with pytest.raises(ValueError, match="'hard' or 'soft'"):
        RoomStyle(shadows="none")  # type: ignore[arg-type]
    assert RoomStyle() == PLAIN
