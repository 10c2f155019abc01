"""Small and thin things: what lies on tables, boards and floors."""

from __future__ import annotations

import math
from collections.abc import Callable

from threer.data.synthetic.chance import Chance
from threer.data.synthetic.furniture import Part, box, cylinder, sphere

Thing = Callable[[Chance, float, float, float, int], list[Part]]


def rod(x: float, y: float, z: float, radius: float, half: float, yaw: float, role: str, tilt: float = 0.5) -> Part:
    """A thin cylinder leaning by ``tilt`` half turns from upright (0.5: level), towards ``yaw``."""
    return Part("cylinder", (x, y, z), (radius, half, radius), yaw, role, tilt * math.pi)


def mug(rng: Chance, x: float, y: float, z: float, i: int) -> list[Part]:
    half, radius = rng.uniform(0.04, 0.06), rng.uniform(0.033, 0.045)
    turn = rng.uniform(0, 2 * math.pi)
    handle = box(
        x + (radius + 0.012) * math.cos(turn),
        y + half,
        z - (radius + 0.012) * math.sin(turn),
        0.014,
        half * 0.6,
        0.005,
        f"mug{i}",
        turn,
    )
    return [cylinder(x, y + half, z, radius, half, f"mug{i}"), handle]


def book_pile(rng: Chance, x: float, y: float, z: float, i: int) -> list[Part]:
    parts = []
    for j in range(int(rng.integers(1, 4))):
        half = rng.uniform(0.008, 0.025)
        wide, deep = rng.uniform(0.07, 0.12), rng.uniform(0.1, 0.15)
        parts.append(box(x, y + half, z, wide, half, deep, f"book{i + j}", rng.uniform(-0.5, 0.5)))
        y += 2 * half
    return parts


def papers(rng: Chance, x: float, y: float, z: float, i: int) -> list[Part]:
    """Sheets of A4, some askew."""
    return [
        box(
            x + rng.uniform(-0.04, 0.04),
            y + 0.0015 + 0.003 * j,
            z + rng.uniform(-0.04, 0.04),
            0.105,
            0.0015,
            0.148,
            f"paper{i + j}",
            rng.uniform(-1, 1),
        )
        for j in range(int(rng.integers(1, 4)))
    ]


def bottle(rng: Chance, x: float, y: float, z: float, i: int) -> list[Part]:
    half, radius = rng.uniform(0.07, 0.11), rng.uniform(0.028, 0.042)
    return [
        cylinder(x, y + half, z, radius, half, f"bottle{i}"),
        cylinder(x, y + 2 * half + 0.03, z, radius * 0.4, 0.03, f"bottle{i}"),
    ]


def carton(rng: Chance, x: float, y: float, z: float, i: int) -> list[Part]:
    half = rng.uniform(0.03, 0.12)
    return [
        box(x, y + half, z, rng.uniform(0.03, 0.1), half, rng.uniform(0.03, 0.09), f"carton{i}", rng.uniform(-1, 1))
    ]


def bowl(rng: Chance, x: float, y: float, z: float, i: int) -> list[Part]:
    """A dish of fruit."""
    fruit = [
        sphere(
            x + rng.uniform(-0.05, 0.05),
            y + 0.06,
            z + rng.uniform(-0.05, 0.05),
            rng.uniform(0.03, 0.04),
            f"vivid{i}",
        )
        for _ in range(3)
    ]
    return [cylinder(x, y + 0.02, z, rng.uniform(0.09, 0.13), 0.02, f"dish{i}"), *fruit]


def pens(rng: Chance, x: float, y: float, z: float, i: int) -> list[Part]:
    """A cup of pens, each leaning its own way."""
    parts = [cylinder(x, y + 0.05, z, 0.035, 0.05, f"cup{i}")]
    for j in range(3):
        turn = rng.uniform(0, 2 * math.pi)
        reach = 0.02
        parts.append(
            rod(
                x + reach * math.sin(turn),
                y + 0.1,
                z + reach * math.cos(turn),
                0.005,
                0.07,
                turn,
                f"pen{i + j}",
                0.09,
            )
        )
    return parts


def frame(rng: Chance, x: float, y: float, z: float, i: int) -> list[Part]:
    """A small picture in a stand."""
    wide, high, yaw = rng.uniform(0.05, 0.1), rng.uniform(0.06, 0.12), rng.uniform(-0.7, 0.7)
    return [
        Part("box", (x, y + high, z), (wide, high, 0.008), yaw, f"wood{i}", -0.15),
        Part("box", (x, y + high, z + 0.004), (wide * 0.85, high * 0.85, 0.009), yaw, f"picture{i}", -0.15),
    ]


def desk_lamp(rng: Chance, x: float, y: float, z: float, i: int) -> list[Part]:
    """Foot, two thin arms, head."""
    yaw, reach, rise = rng.uniform(-1, 1), rng.uniform(0.12, 0.2), rng.uniform(0.16, 0.26)
    role = f"metal{i}"
    sine, cosine = math.sin(yaw), math.cos(yaw)
    lean = math.atan2(reach, rise) / math.pi
    half = math.hypot(reach, rise) / 2
    top = y + 0.02 + rise
    return [
        cylinder(x, y + 0.01, z, 0.07, 0.01, role),
        rod(x + sine * reach / 2, y + 0.02 + rise / 2, z + cosine * reach / 2, 0.007, half, yaw, role, lean),
        rod(x + sine * reach / 2, top + 0.04, z + cosine * reach / 2, 0.007, reach / 2, yaw, role, 0.5),
        cylinder(x, top + 0.02, z, 0.045, 0.035, role),
    ]


def twigs(rng: Chance, x: float, y: float, z: float, i: int) -> list[Part]:
    """A vase with thin stems and leaves at their ends."""
    parts = [cylinder(x, y + 0.08, z, rng.uniform(0.03, 0.05), 0.08, f"pot{i}")]
    return parts + stems(rng, x, y + 0.14, z, 4, (0.08, 0.16), (0.02, 0.045), i)


def stems(
    rng: Chance,
    x: float,
    y: float,
    z: float,
    count: int,
    length: tuple[float, float],
    leaf: tuple[float, float],
    i: int,
) -> list[Part]:
    """Thin stems that spread from a point, each with a flat or a round leaf. ``length`` is half a stem's."""
    parts = []
    for _ in range(count):
        turn, lean, half = rng.uniform(0, 2 * math.pi), rng.uniform(0.04, 0.2), rng.uniform(*length)
        out, up = half * math.sin(lean * math.pi), half * math.cos(lean * math.pi)
        sine, cosine = math.sin(turn), math.cos(turn)
        parts.append(rod(x + sine * out, y + up, z + cosine * out, 0.006, half, turn, f"leaves{i}", lean))
        at, size = (x + 2 * sine * out, y + 2 * up, z + 2 * cosine * out), rng.uniform(*leaf)
        if rng.random() < 0.6:
            parts.append(
                Part("box", at, (size * 0.6, 0.004, size * 1.6), turn, f"leaves{i}", rng.uniform(-0.6, 0.9))
            )
        else:
            parts.append(sphere(*at, size, f"leaves{i}"))
    return parts


def cable(rng: Chance, x: float, y: float, z: float, i: int, pieces: int = 5) -> list[Part]:
    """A cable lying in bends."""
    parts, yaw = [], rng.uniform(-math.pi, math.pi)
    for _ in range(pieces):
        half = rng.uniform(0.06, 0.16)
        middle = (x + half * math.sin(yaw), y + 0.008, z + half * math.cos(yaw))
        parts.append(rod(*middle, 0.008, half, yaw, f"dark{i}"))
        x, z = x + 2 * half * math.sin(yaw), z + 2 * half * math.cos(yaw)
        yaw += rng.uniform(-0.9, 0.9)
    return parts


def laptop(rng: Chance, x: float, y: float, z: float, i: int) -> list[Part]:
    yaw = rng.uniform(-0.5, 0.5)
    back = 0.15
    lid = (x - back * math.sin(yaw), y + 0.115, z - back * math.cos(yaw))
    glass = (lid[0] + 0.006 * math.sin(yaw), lid[1], lid[2] + 0.006 * math.cos(yaw))
    return [
        box(x, y + 0.008, z, 0.16, 0.008, 0.11, f"metal{i}", yaw),
        box(x, y + 0.017, z - 0.01, 0.14, 0.002, 0.05, f"keys{i}", yaw),
        Part("box", lid, (0.16, 0.1, 0.005), yaw, f"metal{i}", -0.3),
        Part("box", glass, (0.15, 0.09, 0.005), yaw, f"screen{i}", -0.3),
    ]


SMALL: tuple[Thing, ...] = (
    mug,
    mug,
    book_pile,
    papers,
    bottle,
    carton,
    bowl,
    pens,
    frame,
    desk_lamp,
    twigs,
    laptop,
)


def scatter(rng: Chance, count: float, half_x: float, half_z: float, height: float, first: int = 0) -> list[Part]:
    """About ``count`` small things on a surface of half size (half_x, half_z) at ``height``, side by side."""
    parts: list[Part] = []
    number = int(count + rng.random())
    if number == 0:
        return parts
    places = rng.sample(range(number), number)
    for i in range(number):
        x = ((places[i] + rng.uniform(0.2, 0.8)) / number * 2 - 1) * half_x * 0.9
        z = rng.uniform(-0.75, 0.75) * half_z
        parts += SMALL[int(rng.integers(len(SMALL)))](rng, x, height, z, first + 10 * i)
    return parts
