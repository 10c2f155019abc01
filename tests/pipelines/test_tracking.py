"""Frames that cannot be registered, tracking lost and found, anchors, pauses: on a model that sees the truth."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.toy_world import ToyModel, frame
from threer.config import StreamingConfig
from threer.errors import ThreerError
from threer.pipelines.cameras import CameraTracker
from threer.pipelines.streaming import StreamingSession
from threer.types import Frame, Update

BASE = StreamingConfig(
    stride=2, radius=2, init_frames=3, init_min_conf=0, scene_frames=3, buffer_size=30, lost_after=4
)
BLACK, BLURRED, CLEAR = 0.0, 0.15, 1.0


def film(places: list[float], clarity: dict[int, float] | None = None) -> list[Frame]:
    return [frame(i, place, (clarity or {}).get(i, CLEAR)) for i, place in enumerate(places)]


def walk(count: int, start: float = 100.0, speed: float = 1.0) -> list[float]:
    return [start + speed * i for i in range(count)]


def run(
    frames: list[Frame], config: StreamingConfig = BASE, model: ToyModel | None = None, **options: Any
) -> tuple[dict[int, Update], StreamingSession]:
    session = StreamingSession(model or ToyModel(), config, **options)
    updates = [u for f in frames for u in session.push(f)] + session.finish()
    assert [u.frame.index for u in updates] == list(range(len(frames))), "each frame once, in order"
    return {u.frame.index: u for u in updates}, session


def place_of(update: Update) -> float:
    """Where the frame was taken, in the unit and frame of the world."""
    assert update.points is not None
    return float(update.points.xyz[..., 0].mean())


def assert_places(updates: dict[int, Update], places: list[float], indices: list[int]) -> None:
    """The world is right up to one scale and origin for all frames."""
    found = np.array([place_of(updates[i]) for i in indices])
    true = np.array([places[i] for i in indices])
    scale, origin = np.polyfit(true, found, 1)
    assert scale > 0
    np.testing.assert_allclose(found, scale * true + origin, atol=1e-2 * scale)


def buffer_indices(session: StreamingSession) -> list[int]:
    assert session._buffer is not None
    return [k.index for k in session._buffer.keyframes]


def test_a_clear_walk_is_registered_where_it_went() -> None:
    places = walk(80)
    updates, session = run(film(places))
    assert {u.kind for u in updates.values()} == {"final"}
    assert_places(updates, places, list(range(80)))
    assert session.report["tracking_lost"] == 0


@pytest.mark.parametrize("clarity", [BLACK, BLURRED], ids=["black", "blurred"])
def test_single_bad_frames_fail_say_why_and_stay_out_of_the_buffer(clarity: float) -> None:
    bad = {30: clarity, 41: clarity, 42: clarity}
    places = walk(80)
    updates, session = run(film(places, bad))
    assert {i for i, u in updates.items() if u.kind == "failed"} == set(bad)
    for i in bad:
        assert ("confident" if clarity == BLACK else "nothing that is known") in updates[i].message
        assert "lost" not in updates[i].message
        assert float(updates[i].points.conf.max()) == 0  # type: ignore[union-attr]
    assert not set(buffer_indices(session)) & set(bad)
    assert session.report["tracking_lost"] == 0
    assert_places(updates, places, [i for i in range(80) if i not in bad])


def test_foreign_frames_are_lost_reported_and_tracking_is_found_again() -> None:
    places = [*walk(40), *walk(20, start=800), *walk(40, start=130)]
    updates, session = run(film(places))
    foreign = range(40, 60)
    assert {i for i, u in updates.items() if u.kind == "failed"} == set(foreign)
    assert "lost" not in updates[42].message
    assert all(updates[i].message.startswith("tracking lost since frame 40") for i in range(43, 60))
    assert updates[60].message == "tracking found again after 20 frames"
    assert not set(buffer_indices(session)) & set(foreign)
    assert (session.report["tracking_lost"], session.report["tracking_found_again"]) == (1, 1)
    assert_places(updates, places, [*range(40), *range(60, 100)])


@pytest.mark.parametrize("blind", [False, True], ids=["retrieval helps", "retrieval knows nothing"])
def test_a_camera_that_returns_to_its_beginning_is_found_by_searching_the_whole_buffer(blind: bool) -> None:
    """Blind retrieval always gives the same few scene frames, of the beginning; the search looks at the others."""
    places = [*walk(30), *walk(12, start=800), *(walk(20, start=118, speed=0.2) if blind else walk(20))]
    config = dataclasses.replace(BASE, scene_frames=4, buffer_size=0)
    updates, session = run(film(places), config, ToyModel(blind_retrieval=blind))
    back = range(42, len(places))
    assert all(updates[i].kind == "failed" for i in range(30, 42))
    assert session.report["tracking_found_again"] >= 1
    found = [i for i in back if updates[i].kind == "final"]
    assert len(found) == (len(back) if not blind else len(found))
    assert found, "the way back was not found"
    assert_places(updates, places, [*range(15), *found])
    if blind:  # it is the search that finds it: a stream that is never declared lost stays lost
        never, _ = run(film(places), dataclasses.replace(config, lost_after=10_000), ToyModel(blind_retrieval=True))
        assert all(never[i].kind == "failed" for i in back)


def test_no_camera_is_given_for_failed_frames() -> None:
    updates, _ = run(film(walk(40), {25: BLURRED}), tracker=CameraTracker())
    assert np.isnan(updates[25].c2w).all()  # type: ignore[arg-type]
    assert np.isfinite(updates[24].c2w).all()  # type: ignore[arg-type]


def test_all_frames_are_accepted_when_that_is_asked_for() -> None:
    updates, session = run(film(walk(60), {30: BLURRED}), dataclasses.replace(BASE, track_min_conf=0))
    assert {u.kind for u in updates.values()} == {"final"}
    assert session.report["tracking_lost"] == 0


@pytest.mark.parametrize("policy", ["reservoir", "fifo"])
def test_anchors_stay_spread_over_the_whole_stream(policy: Any) -> None:
    config = dataclasses.replace(BASE, buffer_size=8, anchors=4, policy=policy, duplicate_tolerance=0)
    _, session = run(film(walk(400, speed=0.02)), config)
    kept = buffer_indices(session)
    assert session._buffer is not None
    anchors = session._buffer.anchors
    assert set(anchors) <= set(kept)
    assert anchors[0] == 0, "the beginning is never lost"
    assert 2 <= len(anchors) <= 4
    assert anchors[-1] > 100
    assert len(kept) == 8


def test_without_anchors_the_beginning_is_forgotten() -> None:
    config = dataclasses.replace(BASE, buffer_size=8, policy="fifo", duplicate_tolerance=0)
    _, session = run(film(walk(400, speed=0.02)), config)
    assert min(buffer_indices(session)) > 350


def test_as_many_anchors_as_places_are_refused() -> None:
    with pytest.raises(ThreerError, match="anchors"):
        StreamingConfig(buffer_size=10, anchors=10)


def pause(before: int, still: int, after: int) -> list[float]:
    return [*walk(before), *[100.0 + before] * still, *walk(after, start=100.0 + before + 1)]


@pytest.mark.parametrize("deadline", [None, 0])
def test_a_long_pause_costs_nothing_and_keeps_the_latency(deadline: int | None) -> None:
    places = pause(30, 200, 30)
    model = ToyModel()
    config = dataclasses.replace(BASE, deadline=deadline)
    session = StreamingSession(model, config, tracker=CameraTracker())
    heard: dict[int, Update] = {}
    buffers = set()
    for now, picture in enumerate(film(places)):
        encoded, registered = model.encoded, model.registrations
        for update in session.push(picture):
            if update.kind == "final":
                assert now - update.frame.index <= 4 or now <= 12
                heard[update.frame.index] = update
            else:
                assert update.kind == "provisional"
                assert now - update.frame.index <= 0 or now <= 12
        if 40 <= now < 225:
            assert (model.encoded, model.registrations) == (encoded, registered)
            buffers.add(tuple(buffer_indices(session)))
            assert session.alive <= 9 + 30 + 4
    for update in session.finish():
        heard[update.frame.index] = update
    assert sorted(heard) == list(range(len(places)))
    assert len(buffers) == 1
    assert session.report["duplicates"] == 199
    assert heard[100].points is heard[31].points
    assert heard[100].frame.index == 100
    np.testing.assert_array_equal(heard[100].c2w, heard[31].c2w)  # type: ignore[arg-type]
    assert_places(heard, places, list(range(len(places))))


def test_repeated_pictures_stay_out_of_windows() -> None:
    places = [x for place in walk(40, speed=2.0) for x in (place, place)]  # every frame twice
    model = ToyModel()
    updates, session = run(film(places), dataclasses.replace(BASE, stride=1, radius=3), model)
    assert session.report["duplicates"] == 40, "in the initial window, too"
    assert all(len(set(w)) == len(w) for w in model.windows[-30:])
    assert_places(updates, places, list(range(len(places))))


def test_repetitions_of_a_failed_frame_fail_with_it() -> None:
    places = walk(40)
    pictures = film(places, {20: BLURRED})
    for i in (21, 22):
        pictures[i] = dataclasses.replace(pictures[i], image=pictures[20].image)
    updates, _ = run(pictures)
    assert {i for i, u in updates.items() if u.kind == "failed"} == {20, 21, 22}
    assert updates[22].message == updates[20].message


def test_a_failing_picture_that_stays_counts_towards_lost_tracking() -> None:
    places = [*walk(20), *[120.0] * 10, *walk(30, start=121)]
    updates, session = run(film(places, dict.fromkeys(range(20, 30), BLURRED)))
    assert session.report["duplicates"] == 9
    assert {i for i, u in updates.items() if u.kind == "failed"} == set(range(20, 30))
    assert "lost" not in updates[22].message
    assert all(updates[i].message.startswith("tracking lost since frame 20: regis") for i in range(23, 30))
    assert updates[30].message == "tracking found again after 10 frames"
    assert (session.report["tracking_lost"], session.report["tracking_found_again"]) == (1, 1)


def test_a_good_picture_that_stays_after_bad_ones_does_not_fail() -> None:
    updates, session = run(film([*walk(30), *[130.0] * 10, *walk(10, 131)], {28: BLURRED, 29: BLURRED}))
    assert {i for i, u in updates.items() if u.kind == "failed"} == {28, 29}
    assert session.report["duplicates"] == 9


def test_a_pause_that_began_in_the_initial_window_has_previews() -> None:
    places = [*walk(5), *[104.0] * 20, *walk(20, start=105)]  # frame 4 is the last of the initial window
    session = StreamingSession(ToyModel(), dataclasses.replace(BASE, deadline=0))
    heard = [(now, u) for now, picture in enumerate(film(places)) for u in session.push(picture)]
    previews = {u.frame.index: (now, u) for now, u in heard if u.kind == "provisional"}
    finals = {u.frame.index: u for _, u in heard if u.kind == "final"}
    for i in range(9, 25):
        now, update = previews[i]
        assert now == i
        assert update.points is finals[4].points, "the picture is known for good"
        assert (update.version, finals[i].version) == (0, 1)


def test_what_was_ready_before_an_error_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    model, frames = ToyModel(), film(walk(40))
    session = StreamingSession(model, BASE)
    updates = [u for f in frames for u in session.push(f)]
    emitted, register = len(updates), ToyModel.register
    calls = iter(range(100))

    def breaks(self: ToyModel, *arguments: Any, **options: Any) -> Any:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return register(self, *arguments, **options)

    monkeypatch.setattr(ToyModel, "register", breaks)
    with pytest.raises(KeyboardInterrupt):
        session.finish()
    assert [u.frame.index for u in session.unreturned] == [emitted, emitted + 1]


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("deadline", [None, 1])
def test_blank_and_repeated_pictures_do_not_begin_a_scene(stride: int, deadline: int | None) -> None:
    """A lens cap for 4 frames, every picture twice, and two black ones just where initial frames would be."""
    places = [x for place in walk(40) for x in (place, place)]
    blank = {0, 1, 2, 3, 4 + 2 * stride, 5 + 2 * stride}
    model = ToyModel()
    decisions: list[dict[str, Any]] = []
    config = dataclasses.replace(BASE, stride=stride, deadline=deadline)
    session = StreamingSession(model, config, tracker=CameraTracker(), trace=decisions.append)
    heard = []
    for i, picture in enumerate(film(places, dict.fromkeys(blank, BLACK))):
        updates = session.push(picture)
        heard += updates
        if i < 4:
            assert [(u.kind, u.frame.index) for u in updates] == [("failed", i)], "at once, for nothing can help it"
            assert "shows nothing" in updates[0].message
            assert np.isnan(updates[0].c2w).all()  # type: ignore[arg-type]
    heard += session.finish()
    final = {u.frame.index: u for u in heard if u.kind == "final"}
    assert [u.frame.index for u in heard if u.kind != "provisional"] == list(range(80))
    assert {u.frame.index for u in heard if u.kind == "failed"} == blank
    initial = [4 + k for k in next(d["frames"] for d in decisions if d["kind"] == "initialize_scene")]
    assert len({places[i] for i in initial}) == len(initial) == 3
    assert not set(initial) & blank
    assert min(np.diff(initial)) >= stride
    assert_places(final, places, sorted(final))
    second = sum(i % 2 for i in initial)  # of a pair, where the first is too near to the initial frame before
    assert session.report["duplicates"] == (80 - 4) // 2 - second, "in the initial window, too"


def test_a_film_that_shows_nothing_says_so() -> None:
    session = StreamingSession(ToyModel(), BASE)
    for picture in film(walk(10), dict.fromkeys(range(10), BLACK)):
        assert [u.kind for u in session.push(picture)] == ["failed"]
    with pytest.raises(ThreerError, match=r"no frame to reconstruct from.* 10 showed one colour only"):
        session.finish()
    session = StreamingSession(ToyModel(), BASE)
    for picture in film(walk(10), dict.fromkeys(range(1, 10), BLACK)):
        assert not session.push(picture)
    with pytest.raises(ThreerError, match="no two of them that show something"):
        session.finish()


def test_the_wait_for_a_beginning_is_bounded() -> None:
    """One picture, then a lens cap for long: what waits is given up as failed, and the scene begins after it."""
    places = walk(400)
    session = StreamingSession(ToyModel(), BASE)
    heard, most = [], 0
    for picture in film(places, dict.fromkeys(range(1, 350), BLACK)):
        heard += session.push(picture)
        most = max(most, session.alive)
    heard += session.finish()
    assert most < 150
    assert [u.frame.index for u in heard] == list(range(400))
    assert {u.frame.index for u in heard if u.kind == "final"} == set(range(350, 400))


def test_a_camera_that_stands_still_for_long_begins_without_a_baseline() -> None:
    session = StreamingSession(ToyModel(), BASE)
    waited = [now for now, picture in enumerate(film([100.0] * 200)) if session.push(picture)]
    assert waited[0] < 145
    assert session.alive < 20
    assert session.report["duplicates"] > 150


def test_slow_motion_and_noise_are_told_apart() -> None:
    generator = torch.Generator().manual_seed(1)
    edges = torch.nn.functional.interpolate(torch.rand(1, 3, 12, 12, generator=generator), size=(96, 96))[0]

    def at(shift: float) -> torch.Tensor:
        left, part = int(shift), shift % 1
        return (1 - part) * edges[:, :64, left : left + 64] + part * edges[:, :64, left + 1 : left + 65]

    def duplicates(images: list[torch.Tensor]) -> int:
        frames = [Frame(x, i, i / 30, str(i), (64, 64), np.eye(2, 3)) for i, x in enumerate(images)]
        return run(frames, dataclasses.replace(BASE, track_min_conf=0))[1].report["duplicates"]

    noise = [(at(0) + 0.02 * torch.randn(3, 64, 64, generator=generator)).clamp(0, 1) for _ in range(40)]
    assert duplicates(noise) == 37, "a camera at rest is recognised through sensor noise"
    assert duplicates([at(0.5 * i) for i in range(40)]) == 0, "half a pixel a frame is motion"
    creeping = duplicates([at(0.02 * i) for i in range(200)])
    assert 100 < creeping < 190, "slow motion adds up"


def test_the_parity_preset_has_none_of_this() -> None:
    config = StreamingConfig.parity(stride=2, init_min_conf=0.0)
    updates, session = run(film(pause(20, 20, 10), {15: BLURRED}), config)
    assert {u.kind for u in updates.values()} == {"final"}
    assert session.report["duplicates"] == 0
