"""The laws of sampling: bounds, gaps, orders, repetition; and that a seed decides everything."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from threer.data.datasets.format import Dataset, Files, Format, Scene, track_of
from threer.data.samples import Traits
from threer.data.sampling import Draws, NoRoomError, ViewPlan, clips, pairs, sets, windows
from threer.errors import ThreerError


class Nowhere(Format):
    """Scenes without files: sampling needs none."""

    def files(self, root: Path, scene: Scene, view: int) -> Files:
        raise AssertionError("sampling reads no files")


def dataset(*scenes: Scene, **traits: object) -> Dataset:
    chosen = Traits(**traits)  # type: ignore[arg-type]
    return Dataset("toy", Path("/"), Nowhere(chosen), list(scenes), chosen)


def scene(frames: int, name: str = "s", **more: object) -> Scene:
    stems = tuple(map(str, range(frames)))
    return Scene(name, stems, (track_of(range(frames), **more),))  # type: ignore[arg-type]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_ordered_clips_rise_by_gaps_within_the_interval() -> None:
    for seed in range(200):
        views = clips.clip(100, 20, 8, 5, ordered=1, steady=0.5, rng=rng(seed))
        gaps = np.diff(views)
        assert views[0] == 20
        assert gaps.min() >= 1
        assert gaps.max() <= 5
    steady = [np.diff(clips.clip(100, 0, 8, 5, 1, 1, rng(seed))) for seed in range(50)]
    assert all(len(set(gaps.tolist())) == 1 for gaps in steady)
    assert {int(gaps[0]) for gaps in steady} == {1, 2, 3, 4, 5}
    loose = [np.diff(clips.clip(100, 0, 8, 5, 1, 0, rng(seed))) for seed in range(50)]
    assert sum(len(set(gaps.tolist())) == 1 for gaps in loose) < 3


def test_gaps_are_cut_so_that_a_late_clip_fits() -> None:
    for seed in range(50):
        views = clips.clip(30, 10, 8, 25, 1, 0.5, rng(seed))
        assert max(views) < 30
        assert max(np.diff(views)) <= (30 - 10 - 1) // 7
    assert clips.clip(30, 29, 8, 25, 1, 1, rng()) == list(range(22, 30))


def test_unordered_clips_are_shuffled_within_blocks_or_wholly() -> None:
    in_blocks = whole = 0
    for seed in range(200):
        views = np.array(clips.clip(500, 0, 64, 3, ordered=0, steady=0, rng=rng(seed)))
        assert len(set(views.tolist())) == 64
        assert (np.diff(views) < 0).any()
        ordered = np.sort(views)
        kept = any(
            all(set(views[i : i + b]) == set(ordered[i : i + b]) for i in range(0, 64, b)) for b in clips.BLOCKS
        )
        in_blocks, whole = in_blocks + kept, whole + (not kept)
    assert 70 < in_blocks < 130
    assert whole == 200 - in_blocks


def test_too_few_frames_come_again() -> None:
    kinds: Counter[str] = Counter()
    for seed in range(400):
        views = clips.clip(9, 3, 24, 5, 1, 1, rng(seed))
        distinct = len(set(views))
        assert len(views) == 24
        assert distinct <= 9
        if all(views[i] == views[i % distinct] for i in range(24)) and views[:distinct] == sorted(views[:distinct]):
            kinds["revisit"] += 1
        else:
            kinds["sorted" if views == sorted(views) else "random"] += 1
    assert 160 < kinds["revisit"] < 240
    assert 120 < kinds["random"] < 200
    assert 20 < kinds["sorted"] < 65
    assert [clips.fewest_frames(v) for v in (2, 4, 9, 10, 64)] == [2, 3, 3, 4, 22]
    with pytest.raises(ValueError, match="needs 8 frames or more, got 7"):
        clips.clip(7, 0, 24, 5, 1, 1, rng())


def test_windows_leave_out_holes() -> None:
    numbers = [*range(0, 100, 10), *range(1000, 1100, 10)]  # a phone's video, numbered by tens, with a hole
    track = track_of(range(20), numbers)
    starts = windows.window_starts(track, 4, 2)
    assert starts.tolist() == [0, 1, 2, 3, 10, 11, 12, 13]
    assert windows.window(3, 4, 2) == [3, 5, 7, 9]
    assert windows.window_starts(track_of(range(6)), 4, 2).tolist() == []


def test_arcs_are_half_circles_that_keep_both_ends() -> None:
    track = track_of(range(100), loop=True)
    even = 0
    for seed in range(300):
        views = windows.arc(track, 80, 11, rng(seed))
        around = np.mod(np.array(views) - 80, 100)
        assert around[0] == 0
        assert around[-1] == 49
        assert (np.diff(around) > 0).all()
        even += np.ptp(np.diff(around)) <= 1
    assert 70 < even < 130
    assert sorted(windows.arc(track_of(range(12), loop=True), 5, 11, rng(1))) != []
    with pytest.raises(ValueError, match="so many frames, got 8"):
        windows.arc(track_of(range(8), loop=True), 0, 11, rng())


def test_pairs_around_an_object_are_a_twentieth_to_a_third_apart() -> None:
    track = track_of(range(100), loop=True)
    gaps = Counter()
    for seed in range(2000):
        a, b = pairs.loop_pair(track, 90, rng(seed))
        gaps[min((a - b) % 100, (b - a) % 100)] += 1
    assert min(gaps) >= 1
    assert max(gaps) <= 38
    assert sum(gaps[g] for g in range(5, 31)) > 1600
    assert pairs.loop_pair(track_of(range(2), loop=True), 0, rng()) in ([0, 1], [1, 0])
    for start in range(10):
        a, b = pairs.near_pair(track_of(range(10)), start, 4, rng(start))
        assert a != b
        assert abs(a - b) <= 4
        assert start in (a, b)


def test_neighbourhoods_are_unsorted_and_never_repeat() -> None:
    track = track_of(range(200))
    for seed in range(100):
        views = sets.neighbourhood(track, 100, 20, 2.0, rng(seed))
        assert len(set(views)) == 20
        assert min(views) >= 80 - sets.JITTER
        assert max(views) < 120 + sets.JITTER
    assert views != sorted(views)
    around = sets.neighbourhood(track_of(range(100), loop=True), 0, 20, 2.0, rng(3))
    assert max(around) > 60
    assert sorted(sets.neighbourhood(track_of(range(20)), 0, 20, 5.0, rng())) == list(range(20))
    with pytest.raises(ValueError, match="so many frames"):
        sets.neighbourhood(track_of(range(19)), 0, 20, 2.0, rng())


def graph_scene() -> Scene:
    """Two islands: a chain of 0 … 9, and 10–11. Overlap falls along the chain, parallax rises."""
    edges = np.array([[i, i + 1] for i in range(9)] + [[10, 11]])
    return Scene(
        "g", tuple(map(str, range(12))), edges=edges, scores=np.linspace(0.9, 0.1, 10), angles=np.arange(10.0)
    )


def test_walks_stay_on_the_graph() -> None:
    graph = sets.graph_of(graph_scene())
    for seed in range(50):
        walk = sets.random_walk(graph, 4, 6, rng(seed))
        assert len(set(walk)) == 6
        for at, place in enumerate(walk[1:], 1):
            assert set(graph[place][0].tolist()) & set(walk[:at])
    found = {tuple(sets.breadth_first(graph, 4, 3, rng(seed))) for seed in range(50)}
    assert found == {(4, 3, 5), (4, 5, 3), (5, 3, 4), (3, 5, 4)}
    with pytest.raises(ValueError, match="only 2 views are connected with view 10, 3 wanted"):
        sets.random_walk(graph, 10, 3, rng())
    heavy = sets.graph_of(
        Scene("h", ("a", "b", "c"), edges=np.array([[0, 1], [0, 2]]), scores=np.array([0.9, 0.1]))
    )
    first = Counter(sets.random_walk(heavy, 0, 2, rng(seed))[1] for seed in range(500))
    assert 420 < first[1] < 480


def test_overlap_and_parallax_are_bounded() -> None:
    place = graph_scene()
    draws = Draws(dataset(place), ViewPlan("pair", overlap=(0.3, 0.8), parallax=(2.0, 20.0)), 2)
    assert place.scores is not None
    assert place.angles is not None
    seen = set()
    for index in range(len(draws)):
        drawn = draws.draw(index, 2, rng(index))
        seen.add(tuple(sorted(view for _, view in drawn.views)))
    kept = [
        tuple(edge) for edge, s, a in zip(place.edges.tolist(), place.scores, place.angles, strict=True)  # type: ignore[union-attr]
        if 0.3 <= s <= 0.8 and 2 <= a <= 20
    ]  # fmt: skip
    assert sorted(seen) == sorted(kept)
    assert 0 < len(kept) < 10
    graph = sets.graph_of(place, overlap=(0.5, 1.0))
    assert sorted(graph) == [0, 1, 2, 3, 4, 5]


def test_draws_are_numbered_and_decided_by_the_seed() -> None:
    data = dataset(scene(40, "a"), scene(3, "b"), scene(30, "c"), metric=True)
    draws = Draws(data, ViewPlan("clip", interval=3), 4)
    assert len(draws) == 73
    for index in (0, 39, 40, 72):
        first, again = draws.draw(index, 4, rng(5)), draws.draw(index, 4, rng(5))
        assert first == again
    assert {draws.draw(i, 4, rng()).views[0][0] for i in range(73)} == {0, 1, 2}
    state = (generator := rng(9)).bit_generator.state
    drawn = [draws.draw(i, 4, generator) for i in range(5)]
    generator.bit_generator.state = state
    assert [draws.draw(i, 4, generator) for i in range(5)] == drawn
    with pytest.raises(IndexError):
        draws.draw(73, 4, rng())
    with pytest.raises(NoRoomError, match="toy b: a clip of 12 views needs 4 frames"):
        draws.draw(41, 12, rng())
    with pytest.raises(ThreerError, match="has no set of 50 views"):
        Draws(data, ViewPlan("set"), 50)


def test_rays_are_shown_of_metric_clips_only_and_never_first() -> None:
    plan = ViewPlan("clip", modality=(0.5, 0.3, 0.2))
    counts: Counter[tuple[bool, bool]] = Counter()
    draws = Draws(dataset(scene(60), metric=True), plan, 10)
    for index in range(50):
        drawn = draws.draw(index, 10, rng(index))
        assert (drawn.seen[0], drawn.rays[0]) == (True, False)
        counts.update(zip(drawn.seen[1:], drawn.rays[1:], strict=True))
    assert set(counts) == {(True, False), (False, True), (True, True)}
    assert 0.42 < counts[True, False] / 450 < 0.58
    for other in (dataset(scene(60)), dataset(scene(60), metric=True, single_view=True)):
        drawn = Draws(other, plan, 10).draw(0, 10, rng())
        assert all(drawn.seen)
        assert not any(drawn.rays)


def test_single_views_come_from_anywhere() -> None:
    data = dataset(*(scene(2, str(n)) for n in range(30)), single_view=True)
    drawn = Draws(data, ViewPlan("clip"), 8).draw(0, 8, rng())
    assert len({place for place, _ in drawn.views}) > 4


def test_collections_serve_what_has_no_order() -> None:
    group = np.array([0, 7, 21, 33])
    place = Scene("s", tuple(map(str, range(40))), (track_of(range(40)),), collections=(group,))
    data = dataset(place, ordered=0.0)
    for seed in range(20):
        views = [v for _, v in Draws(data, ViewPlan("clip"), 4).draw(3, 4, rng(seed)).views]
        assert sorted(views) == group.tolist()
    data = dataset(place, ordered=1.0)
    assert next(v for _, v in Draws(data, ViewPlan("clip"), 4).draw(3, 4, rng()).views) == 3
