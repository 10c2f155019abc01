"""Data sets that lie in the common layouts of `folders`, and differ only in what is true of them."""

from __future__ import annotations

from threer.data.datasets.folders import Folders
from threer.data.samples import Modality, Traits

MOST: Modality = (0.75, 0.2, 0.05)
FEW: Modality = (0.85, 0.1, 0.05)
IMAGE: Modality = (1.0, 0.0, 0.0)


def _moving(interval: int, ordered: float, steady: float, modality: Modality, **more: float) -> Traits:
    return Traits(
        metric=True, interval=interval, ordered=ordered, steady=steady, modality=modality, **more  # type: ignore[arg-type]
    )  # fmt: skip


TRAITS: dict[str, Traits] = {
    # the names of published preprocessing (training.md, sections 5.3 and 7)
    "hypersim": _moving(4, 0.5, 0.5, MOST),
    "mapfree": _moving(30, 0.8, 0.5, MOST, far=400.0, percentile=98.0),
    "tartanair": _moving(20, 0.8, 0.8, MOST, percentile=98.0),
    "vkitti2": _moving(5, 1.0, 0.9, FEW, sky_from=655.0),
    "unrealstereo4k": _moving(2, 0.5, 0.5, MOST, sky_from=1000.0),
    "dl3dv": Traits(interval=20, modality=IMAGE, percentile=98.0),
    "bedlam": _moving(4, 1.0, 1.0, FEW, far=200.0),
    "pointodyssey": _moving(4, 1.0, 1.0, (0.9, 0.05, 0.05), far=1000.0),
    "mvs-synth": Traits(interval=4, ordered=1.0, steady=1.0, modality=IMAGE, far=1000.0),
    "dynamicreplica": _moving(16, 1.0, 1.0, FEW),
    "spring": _moving(16, 1.0, 1.0, FEW),
    "mp3d": Traits(metric=True, modality=FEW),
    "uasol": _moving(40, 0.75, 0.75, MOST, far=20.0),
    "omniobject3d": Traits(interval=100, ordered=0.0, modality=IMAGE),
    "re10k": Traits(interval=128, modality=IMAGE, camera_only=True),
    "mvimgnet": Traits(interval=32, modality=IMAGE, camera_only=True),
    # published preprocessing of these is not described: bring them into the common or the generic layout
    "arkitscenes-high": _moving(8, 0.5, 0.5, (0.7, 0.25, 0.05)),
    "cop3d": Traits(interval=5, ordered=1.0, steady=1.0, modality=IMAGE, camera_only=True),
    "eden": Traits(metric=True, single_view=True, modality=IMAGE),
    "irs": Traits(metric=True, single_view=True, modality=IMAGE),
    "synscapes": Traits(metric=True, single_view=True, modality=IMAGE),
    "urbansyn": Traits(metric=True, single_view=True, modality=IMAGE),
    "smartportraits": Traits(metric=True, single_view=True, modality=IMAGE),
    "hoi4d": Traits(metric=True, single_view=True, modality=IMAGE),
    "3dkenburns": Traits(single_view=True, modality=IMAGE),
}

FORMATS = {name: Folders(name, traits) for name, traits in TRAITS.items()}
