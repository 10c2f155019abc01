"""The check of a data set: files of all views, then pictures, cameras and depth of a part of them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from threer.data.checking.consistency import compared
from threer.data.checking.views import camera_findings, depth_findings
from threer.data.datasets.format import Dataset, fitting
from threer.data.samples import RawView
from threer.errors import ThreerError
from threer.io.images import load_image

Level = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: an error spoils training, a warning should be looked at.

    kind  short name for counting;  where  scene and view;  message  one line
    """

    level: Level
    kind: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.level:<8} {self.kind:<12} {self.where}: {self.message}"


@dataclass
class Report:
    """What was looked at, and what was found.

    agree  of the pairs that were compared: share of the overlap in which depth, warped, agrees within 10 %
    """

    dataset: str
    scenes: int
    views: int
    read: int = 0
    pairs: int = 0
    agree: list[float] = field(default_factory=list)
    depth: list[float] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def errors(self) -> int:
        return sum(finding.level == "error" for finding in self.findings)

    @property
    def warnings(self) -> int:
        return len(self.findings) - self.errors

    def counts(self) -> dict[tuple[str, str], int]:
        """Findings by (level, kind), errors first."""
        return dict(sorted(Counter((f.level, f.kind) for f in self.findings).items()))


def check(dataset: Dataset, views: int = 200, report: Callable[[Finding], None] = lambda finding: None) -> Report:
    """Look for all files, and read up to ``views`` views: groups of neighbours, spread evenly over the scenes.

    ``report`` is told every finding at once.
    """
    result = Report(dataset.name, len(dataset.scenes), dataset.views)

    def found(level: str, kind: str, where: str, message: str) -> None:
        assert level in ("error", "warning")
        finding = Finding("error" if level == "error" else "warning", kind, where, message)
        result.findings.append(finding)
        report(finding)

    missing = set()
    for scene, view, path in _missing(dataset):
        missing.add((scene, view))
        found("error", "missing", dataset.view_name(scene, view), f"no such file: {path}")
    useless = set(missing)
    read: set[tuple[int, int]] = set()
    pictures: dict[bytes, str] = {}
    for scene, group in groups(dataset, views):
        raws: list[tuple[int, RawView]] = []
        for view in group:
            if (scene, view) in useless:
                continue
            if (scene, view) in read:  # pairs of a graph share views, which are told about once
                raws.append((view, dataset.read(scene, view)))
                continue
            result.read += 1
            read.add((scene, view))
            raw = _read(dataset, scene, view, found)
            if raw is None:
                useless.add((scene, view))
                continue
            _look(raw, dataset, dataset.view_name(scene, view), result, pictures, found)
            raws.append((view, raw))
        if dataset.traits.camera_only or dataset.traits.single_view:
            continue
        names = [dataset.view_name(scene, view) for view, _ in raws]
        outcome = compared([raw for _, raw in raws], names)
        result.pairs += outcome.pairs
        result.agree += outcome.agree
        for level, kind, where, message in outcome.findings:
            found(level, kind, where, message)
    return result


def _look(
    raw: RawView,
    dataset: Dataset,
    where: str,
    result: Report,
    pictures: dict[bytes, str],
    found: Callable[[str, str, str, str], None],
) -> None:
    """What one view alone tells."""
    for level, kind, message in camera_findings(raw, dataset.traits):
        found(level, kind, where, message)
    for level, kind, message in depth_findings(raw, dataset.traits):
        found(level, kind, where, message)
    if (raw.depth > 0).any():
        result.depth.append(float(np.median(raw.depth[raw.depth > 0])))
    digest = hashlib.sha1(raw.image.tobytes()).digest()
    if digest in pictures:
        found("warning", "duplicate", where, f"the same picture as {pictures[digest]}")
    pictures.setdefault(digest, where)


def groups(dataset: Dataset, views: int, together: int = 4) -> list[tuple[int, list[int]]]:
    """Scenes and neighbouring views in them, about ``views`` in all, spread evenly."""
    wanted = max(1, views // together)
    count = min(len(dataset.scenes), wanted)
    per_scene = -(-wanted // count)
    chosen: list[tuple[int, list[int]]] = []
    for scene in np.unique(np.linspace(0, len(dataset.scenes) - 1, count).round().astype(int)).tolist():
        for line in _lines(dataset, scene):
            # as far apart as clips take them: the smallest motion hides every mistake
            step = max(1, min(dataset.traits.interval, (len(line) - 1) // (together - 1))) if together > 1 else 1
            span = step * (together - 1) + 1
            parts = max(1, min(per_scene, len(line) // together))
            for start in np.unique(np.linspace(0, max(0, len(line) - span), parts).astype(int)).tolist():
                chosen.append((scene, line[start : start + span : step]))
                if len(chosen) >= wanted:
                    return chosen
    return chosen


def _lines(dataset: Dataset, scene: int) -> list[list[int]]:
    """Views of a scene in an order in which neighbours should overlap."""
    place = dataset.scenes[scene]
    if place.edges is not None and len(place.edges) and not place.tracks:
        strongest = np.arange(len(place.edges)) if place.scores is None else np.argsort(-place.scores)
        return [[int(v) for v in place.edges[e]] for e in strongest]
    if place.tracks:
        return [[int(v) for v in track.views] for track in place.tracks]
    return [list(range(len(place)))]


def _missing(dataset: Dataset) -> Iterator[tuple[int, int, str]]:
    for scene, place in enumerate(dataset.scenes):
        for view in range(len(place)):
            for path in dataset.files(scene, view).needed():
                if not path.is_file():
                    yield scene, view, str(path.relative_to(dataset.root))


def _read(dataset: Dataset, scene: int, view: int, found: Callable[[str, str, str, str], None]) -> RawView | None:
    """The view, or None after saying which part of it cannot be read."""
    files, where = dataset.files(scene, view), dataset.view_name(scene, view)
    try:
        image = load_image(files.image)
    except ThreerError as error:
        found("error", "picture", where, str(error))
        return None
    try:
        _, K = dataset.camera(scene, view)
    except ThreerError as error:
        found("error", "camera", where, str(error))
        return None
    try:
        if files.depth is not None:
            depth = dataset.format.depth(files, K)
            if fitting(depth, image, files.depth).shape != depth.shape:
                size = f"{depth.shape[1]}×{depth.shape[0]}, the picture {image.shape[1]}×{image.shape[0]}"
                found("warning", "depth size", where, f"depth has {size}; the nearest value is taken")
        return dataset.read(scene, view)
    except ThreerError as error:
        kind = "depth size" if "does not fit a picture" in str(error) else "depth"
        found("error", kind, where, str(error))
        return None
