"""From a video or a folder of images to a finished run: the one call most users need."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from itertools import dropwhile
from pathlib import Path
from typing import Any

import torch

from threer.config import InputSpec, ReconstructConfig, RefineConfig
from threer.errors import ReconstructionError, ThreerError
from threer.io.atomic import write_json
from threer.io.intrinsics import with_known_lens
from threer.io.runs import RunWriter, Scene, lock_folder
from threer.io.runs.layout import PREVIEW, REPORT
from threer.io.runs.lock import RunLock
from threer.io.runs.scene import read_run
from threer.io.sources import FrameSource, RawFrame, open_source, to_frame
from threer.models.device import find_device
from threer.pipelines.classical.colmap import pycolmap
from threer.pipelines.classical.session import FOLDER as FEATURES
from threer.pipelines.classical.session import ClassicalSession
from threer.pipelines.cost import Clock, peak_memory_mib
from threer.pipelines.interrupts import first_interrupt_calls, not_interrupted
from threer.pipelines.live import LiveFeed
from threer.pipelines.methods import advice, load_method, make_session
from threer.pipelines.placement import check_apart
from threer.pipelines.recurrent import RecurrentSession
from threer.pipelines.refine.apply import refine
from threer.pipelines.refine.second_run import CLOSED, REFINED
from threer.pipelines.saving import RunSaver, SavePoint, check_same, weights_fingerprint
from threer.pipelines.sessions import Progress, Session
from threer.pipelines.streaming import StreamingSession
from threer.pipelines.undistorted import only_seen
from threer.render.overview import overview
from threer.render.pictures import save_png
from threer.types import Checkpoint, Frame, Observer, Update

PREVIEW_POINTS = 1_000_000
TOO_SLOW = "frames come faster than they are reconstructed"
CUT_OFF = "the run ended before its turn came"


@dataclass(frozen=True)
class Start:
    """What a reconstruction is about to do.

    expected  frames of the source, or None when it cannot tell
    done      of these, frames that a resumed run has on disk already
    advice    a line on what may do better, or None
    """

    source: str
    method: str
    why: str
    checkpoint: Checkpoint
    device: str
    expected: int | None
    out: Path
    done: int = 0
    advice: str | None = None


def reconstruct(
    source: str | Path | Sequence[str | Path],
    out: str | Path = "out",
    config: ReconstructConfig | None = None,
    *,
    observers: Sequence[Observer] = (),
    on_start: Callable[[Start], None] | None = None,
    on_stop: Callable[[], None] | None = None,
    on_progress: Progress | None = None,
    **settings: Any,
) -> Scene:
    """Reconstruct ``source`` into the run folder ``out`` and return a handle on it.

    source     a video file, a folder or glob of images, a list of image files, or a live source (`open_source`)
    out        folder of the run; it is made, and a run in it is kept unless `overwrite` or `resume` is set
    config     all settings; single ones can be given by name instead: ``fps=5, weights="slam3r-mini"``
    observers  are told every update: points, confidence and camera of each final frame
    on_start   is told once what was chosen, before the first frame
    on_stop    is told, from another thread, that Ctrl-C has ended a source that has no end of its own
    on_progress is told of stages in which no frame becomes final: what is done, how many steps, of how many

    SLAM3R and CUT3R stream: their memory does not grow with the length of the video. Fast3R, DUSt3R and the
    classical baseline look at all photos together. Of a live source, frames are left out evenly when they come
    faster than they are reconstructed; observers are told of each, and the report counts them. When something stops
    the run, from a broken file to Ctrl-C, the frames that were final by then are kept and the run is marked.

    A source that cannot be read again (a camera, a stream, a watched folder) is ended by the first Ctrl-C: what
    came in by then is reconstructed, and the run is complete. A second one interrupts. This is so in the main
    thread, as long as nobody else handles SIGINT.

    With `resume` a run that was stopped, or killed at any moment, goes on; what comes out is the same as without
    the stop, but for times. A complete run is given back as it is.

    Raises `SourceError`, `CheckpointError`, `ReconstructionError` or `RunError`, each with one plain line.
    """
    config = with_known_lens(dataclasses.replace(config or ReconstructConfig(), **settings))
    clock = Clock()
    out = Path(out)
    if config.refine:
        pycolmap()  # what is missing is told now, not hours later
    frames = open_source(source, config.frames())
    check_apart(source, frames, out)
    with clock("loading"):
        device = find_device(config.device)
        choice, model = load_method(frames, config, device)
        in_order = frames.is_sequence or frames.live
        session = make_session(choice.method, model, config, in_order=in_order, progress=on_progress)
    checkpoint = model.checkpoint
    assert checkpoint is not None
    recorded = {
        "source": frames.name if frames.live else _named(source),  # a stream's address may hold a password
        "fingerprint": frames.fingerprint(),
        "device": device,
        **dataclasses.asdict(config),
        "method": choice.method,
    }
    weights = {**dataclasses.asdict(checkpoint), "fingerprint": weights_fingerprint(model)}
    rereadable = recorded["fingerprint"] is not None
    if isinstance(session, RecurrentSession) and config.recurrent.second_pass and not rereadable:
        raise ThreerError(
            f"second_pass reads the source twice, and {frames.name} cannot be: reconstruct a recording"
        )
    resumable = rereadable and isinstance(session, StreamingSession)
    saver = RunSaver(out, config.save_every if resumable else None)
    with lock_folder(out) as lock:
        run = read_run(out) if config.resume else None
        if run is not None:
            check_same(out, run, recorded, weights)
            if run["state"] == "complete":
                return _refined(_completed(out, saver), config, lock)
        if config.overwrite:
            REFINED.discard(out)
            CLOSED.discard(out)
        point = SavePoint() if run is None else saver.latest()
        clock.add(point.seconds)
        if isinstance(session, StreamingSession):
            point.restore(session)
        writer = RunWriter(
            out,
            recorded,
            weights=weights,
            metric=checkpoint.metric,
            precision=config.precision,
            keep=config.keep,
            normals=config.normals,
            overwrite=config.overwrite,
            resume=None if run is None else point.progress,
            lock=lock,
        )
        if on_start:
            method, why = choice.method, choice.why
            better = advice(method, frames, checkpoint.name)
            on_start(Start(frames.name, method, why, checkpoint, device, frames.expected, out, len(writer), better))
        if isinstance(session, ClassicalSession):
            session.folder = out / FEATURES
        one_lens = config.intrinsics is not None

        def stopped() -> None:
            frames.notes.append(f"{frames.name} was ended by Ctrl-C")
            if on_stop:
                on_stop()

        _stream(
            frames,
            model.input,
            session,
            only_seen((writer, *observers), frames.undistortion),
            writer,
            saver,
            clock,
            point.taken,
            one_lens,
            None if rereadable else stopped,
        )
        return _refined(_completed(out, saver), config, lock)


def _named(source: str | Path | Sequence[str | Path]) -> str | list[str]:
    """The source as `open_source` takes it, for whoever needs its pictures again."""
    return str(source) if isinstance(source, str | Path) else [str(path) for path in source]


def _stream(
    frames: FrameSource,
    spec: InputSpec,
    session: Session,
    observers: Sequence[Observer],
    writer: RunWriter,
    saver: RunSaver,
    clock: Clock,
    taken: int,
    one_lens: bool,
    on_stop: Callable[[], None] | None,
) -> None:
    """Send all but the first ``taken`` of ``frames`` through ``session``, tell ``observers``, finish the run.

    ``one_lens`` says that all have the same intrinsics in original pixels, and so the same size; ``on_stop`` that
    Ctrl-C ends the source instead of the run, and is told of it.
    """
    first: Frame | None = None
    untold: Iterator[Update] = iter(())
    in_hand: tuple[Update, int] | None = None  # an update, and how many observers have had it
    at_work = set[int]()  # frames that were taken and are neither final nor failed

    def deliver(updates: Iterable[Update]) -> None:
        nonlocal untold, in_hand
        coming = iter(updates)
        untold = coming if isinstance(updates, list) else iter(())  # others would work on to give more
        while True:
            with clock("reconstruction"):  # a session may make them one by one
                update = next(coming, None)
            if update is None:
                return
            with clock("writing"):
                for told, observer in enumerate(observers):
                    in_hand = (update, told)
                    observer.on(update)
                in_hand = None
                at_work.discard(update.frame.index)

    def report() -> dict[str, Any]:
        told = dict(session.report)
        return {
            "skipped": frames.skipped,
            "notes": [*frames.notes, *told.pop("notes", ())],
            **told,
            "seconds": clock.seconds(),
            "peak_memory_mib": peak_memory_mib(),
            "torch_threads": torch.get_num_threads(),
        }

    feed = LiveFeed(frames) if frames.live else None
    pictures = dropwhile(lambda raw: raw.index < taken, feed or frames)

    def next_frame() -> RawFrame | None:
        with clock("reading"):
            return next(pictures, None)

    def enough() -> None:
        try:
            if on_stop:
                on_stop()
        finally:
            (feed or frames).stop()

    def left_out(why: str = TOO_SLOW) -> list[Update]:
        return [Update("dropped", frame, message=why) for frame in feed.dropped()] if feed else []

    def tell_the_rest(interrupted: bool) -> None:
        """Nothing that is known when an error comes is lost, whatever else fails.

        An observer that was interrupted gets its update again (the writer takes a frame once); one that failed does
        not.
        """
        if in_hand:
            update, told = in_hand
            for observer in observers[told if interrupted else told + 1 :]:
                with suppress(Exception, KeyboardInterrupt):  # the signal is shut out; an observer may raise it
                    observer.on(update)
        rest = [*untold, *(session.unreturned if isinstance(session, StreamingSession) else ()), *left_out()]
        if feed:
            feed.close()
            rest += left_out(CUT_OFF)
        for update in rest:
            at_work.discard(update.frame.index)
            for observer in observers:
                with suppress(Exception):
                    observer.on(update)
        if at_work:
            spread = f"{len(at_work)} frames of those from {min(at_work)} to {max(at_work)}"
            frames.notes.append(f"{spread} were taken, but not final when the run ended: they are not in it")

    try:
        with first_interrupt_calls(enough) if on_stop else nullcontext():
            while (raw := next_frame()) is not None:
                deliver(left_out())
                with clock("reading"):
                    frame = to_frame(raw, spec)
                first = first or frame
                if one_lens:
                    _check_same_size(first, frame)
                at_work.add(frame.index)
                with clock("reconstruction"):
                    if isinstance(session, ClassicalSession):
                        session.look(raw.image, frames.focal_of(raw))
                    updates = session.push(frame)
                deliver(updates)
                if saver.due and isinstance(session, StreamingSession):
                    with clock("saving"):
                        saver.save(session, writer, raw.index + 1, clock.seconds())
        deliver(left_out())
        with clock("reconstruction"):
            last = session.finish()
        deliver(last)
        if isinstance(session, RecurrentSession):
            _review(frames, spec, session, deliver, clock)
            session.save_state(writer.out)
        writer.finish("complete", report())
    except BaseException as error:  # whatever it is, what was final stays, and the caller hears of it
        interrupted = isinstance(error, KeyboardInterrupt)
        with not_interrupted():
            for step in (
                lambda: tell_the_rest(interrupted),
                lambda: writer.finish("interrupted" if interrupted else "failed", report()),
            ):
                try:
                    step()
                except BaseException as another:  # never instead of the first
                    error.add_note(f"then, while the run was closed: {type(another).__name__}: {another}")
        raise


def _check_same_size(first: Frame, frame: Frame) -> None:
    """Raises `ReconstructionError` if the intrinsics of one cannot be those of the other."""
    if frame.original_size != first.original_size:
        (a, b), (c, d) = first.original_size, frame.original_size
        raise ReconstructionError(
            f"intrinsics hold for one size of image, but {first.name} is {a}×{b} and {frame.name} {c}×{d}: leave "
            "the intrinsics out, or give images of one size"
        )


def _review(
    frames: FrameSource,
    spec: InputSpec,
    session: RecurrentSession,
    deliver: Callable[[Iterable[Update]], None],
    clock: Clock,
) -> None:
    """Show all frames again to a session that wants it."""
    if not session.config.second_pass:
        return
    for raw in frames:
        with clock("reconstruction"):
            updates = session.review(to_frame(raw, spec))
        deliver(updates)


def _completed(out: Path, saver: RunSaver) -> Scene:
    """The complete run in ``out``, with what may still be missing there, or be there for nothing."""
    saver.clear()
    scene = Scene.open(out)
    if not (out / PREVIEW).is_file():
        draw_preview(scene)
    return scene


def _refined(scene: Scene, config: ReconstructConfig, lock: RunLock) -> Scene:
    """The refined run if that was asked for and helps; the run itself is complete whatever comes of it."""
    if not config.refine:
        return scene
    if scene.report.get(REFINED.name, {}).get("accepted") and read_run(scene.path / REFINED.name) is not None:
        return Scene.open(scene.path / REFINED.name)
    once = scene.settings.get("fingerprint") is None
    settings = RefineConfig(pictures="run" if once else "source", overwrite=True)
    try:
        return refine(scene, config=settings, lock=lock).scene
    except ThreerError as error:
        write_json(scene.path / REPORT, {**scene.report, REFINED.name: {"accepted": False, "why": str(error)}})
        return scene


def draw_preview(scene: Scene) -> None:
    """Draw the cloud and the camera path of a run into its folder."""
    cloud = scene.cloud(max_points=PREVIEW_POINTS)
    save_png(scene.path / PREVIEW, overview(cloud.xyz, cloud.rgb, scene.trajectory))
