"""`threer data`: what is wrong with a data set, and what it looks like."""

from __future__ import annotations

import dataclasses
import json as jsonlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from threer.errors import ThreerError

if TYPE_CHECKING:
    from threer.data.checking import Report
    from threer.data.synthetic import ClipStyle

SHOWN = 20


@dataclass(frozen=True)
class Check:
    """Look for everything that would spoil a training: files, pictures, cameras, depth, and whether they agree.

    Ends with exit code 1 when there are errors.
    """

    folder: tyro.conf.Positional[Path]
    """The root of the data set."""
    dataset: str | None = None
    """Which data set it is; guessed from its layout when not given. `generic` is images/, depth/, cams.json."""
    split: Literal["train", "test", "all"] = "all"
    """Which scenes to look at."""
    views: int = 200
    """How many views to read; files are looked for in all of them."""
    everything: bool = False
    """Print every finding instead of the first 20 of a kind."""
    json: bool = False
    """Print JSON on standard output, and nothing else."""

    def run(self) -> int:
        from rich.console import Console

        from threer.data.checking import Finding, check
        from threer.data.datasets import guess_name, open_dataset

        if self.views < 1:
            raise ThreerError(f"views must be at least 1, got {self.views}")
        if not self.folder.is_dir():
            raise ThreerError(f"no such folder: {self.folder}")
        printed: dict[str, int] = {}

        def tell(finding: Finding) -> None:
            printed[finding.kind] = printed.get(finding.kind, 0) + 1
            if not self.json and (self.everything or printed[finding.kind] <= SHOWN):
                print(finding, flush=True)

        opened = open_dataset(self.dataset or guess_name(self.folder), self.folder, self.split)
        with Console(stderr=True).status(f"checking {opened.views:,} views of {len(opened.scenes):,} scenes"):
            report = check(opened, self.views, tell)
        if self.json:
            print(jsonlib.dumps(_summary(report) | {"findings": [dataclasses.asdict(f) for f in report.findings]}))
        else:
            _print_table(report)
        return 1 if report.errors else 0


@dataclass(frozen=True)
class Preview:
    """Draw a contact sheet: pictures above their depth, a scene in each row."""

    source: tyro.conf.Positional[str]
    """`synthetic`, or the root of a data set."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("sheet.png")
    """Picture to write."""
    dataset: str | None = None
    """Which data set it is; guessed from its layout when not given."""
    rows: int = 5
    """Scenes."""
    columns: int = 4
    """Views of each."""
    seed: int = 0
    """Of the first generated room."""
    style: Literal["hand-held", "plain"] = "hand-held"
    """Of generated rooms: as a phone films them, empty rooms above full ones; or plain."""
    textures: Path | None = None
    """Folder of photographs of tileable surfaces, for hand-held generated rooms."""

    def run(self) -> int:
        from threer.data import preview
        from threer.data.datasets import guess_name, open_dataset

        if min(self.rows, self.columns) < 1:
            raise ThreerError(f"a sheet needs a row and a column, got {self.rows}×{self.columns}")
        if self.source == "synthetic":
            pictures = preview.of_generator(self.rows, self.columns, self.seed, self._generated())
        else:
            if not Path(self.source).is_dir():
                raise ThreerError(f"no such folder: {self.source}; name `synthetic` or the root of a data set")
            name = self.dataset or guess_name(self.source)
            pictures = preview.of_dataset(open_dataset(name, self.source, "all"), self.rows, self.columns)
        preview.save_sheet(preview.contact_sheet(pictures), self.out)
        print(self.out)
        return 0

    def _generated(self) -> ClipStyle:
        from threer.data.synthetic import HAND_HELD, ClipStyle
        from threer.data.synthetic.photographs import photographs_in

        if self.style == "plain":
            if self.textures is not None:
                raise ThreerError("plain rooms take no textures; leave out --textures or --style plain")
            return ClipStyle()
        if self.textures is None:
            return HAND_HELD
        room = dataclasses.replace(HAND_HELD.room, photographs=photographs_in(self.textures))
        return dataclasses.replace(HAND_HELD, room=room)


Verb = Annotated[Check, tyro.conf.subcommand("check")] | Annotated[Preview, tyro.conf.subcommand("preview")]


def data(verb: tyro.conf.OmitSubcommandPrefixes[tyro.conf.OmitArgPrefixes[Verb]]) -> int:
    """Check data sets before training on them, and look at them."""
    return verb.run()


def _summary(report: Report) -> dict[str, object]:
    return {
        "dataset": report.dataset,
        "scenes": report.scenes,
        "views": report.views,
        "read": report.read,
        "pairs": report.pairs,
        "agree": _median(report.agree),
        "depth": _median(report.depth),
        "errors": report.errors,
        "warnings": report.warnings,
    }


def _print_table(report: Report) -> None:
    print(f"{report.dataset}: {report.scenes:,} scenes, {report.views:,} views, {report.read:,} of them read")
    agree, depth = _median(report.agree), _median(report.depth)
    if depth is not None:
        print(f"median depth {depth:.3g}")
    if agree is not None:
        print(f"depth of neighbours agrees within 10 % in {agree:.0%} of what both see ({report.pairs} pairs)")
    for (level, kind), count in report.counts().items():
        print(f"{count:>8}  {level:<8} {kind}")
    print(
        "nothing wrong was found" if not report.findings else f"{report.errors} errors, {report.warnings} warnings"
    )


def _median(values: list[float]) -> float | None:
    from statistics import median

    return median(values) if values else None
