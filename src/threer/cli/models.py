"""`threer models`: which weights there are, what is in them, and getting, checking and converting them."""

from __future__ import annotations

import json as jsonlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

if TYPE_CHECKING:
    from threer.models.registry import Entry


@dataclass(frozen=True)
class ListWeights:
    """List all weights that have a name: licence, system, size, and where they are."""

    json: bool = False
    """Print JSON on standard output."""

    def run(self) -> None:
        from threer.models.registry import entries

        rows = [_row(name, entry) for name, entry in entries().items()]
        if self.json:
            print(jsonlib.dumps(rows))
            return
        header = {"name": "NAME", "family": "SYSTEM", "licence": "LICENCE", "size": "SIZE", "place": "WHERE"}
        for row in [header, *rows]:
            size = row["size"] if isinstance(row["size"], str) else _megabytes(row["size"])
            print(f"{row['name']:<18} {row['family']:<7} {row['licence']:<35} {size:>8}  {row['place']}")


@dataclass(frozen=True)
class Info:
    """Tell what a checkpoint is: licence, settings, number of parameters."""

    weights: tyro.conf.Positional[str]
    """A name of `threer models list`, a file or a folder."""
    json: bool = False
    """Print JSON on standard output."""

    def run(self) -> None:
        from threer.models.inspect import describe

        found = describe(self.weights)
        if self.json:
            print(jsonlib.dumps(found))
            return
        settings = found.pop("settings", {})
        for name, value in found.items():
            print(f"{name:<12} {f'{value:,}' if isinstance(value, int) and name == 'parameters' else value}")
        for name, value in settings.items():
            print(f"  {name:<20} {value}")


@dataclass(frozen=True)
class Check:
    """Load weights strictly and say in one line what is wrong with them, or that nothing is."""

    weights: tyro.conf.Positional[str]
    """A name of `threer models list`, a file or a folder."""

    def run(self) -> None:
        from threer.models.inspect import check

        family, parameters = check(self.weights)
        print(f"{self.weights} is {family}, {parameters:,} parameters, complete and finite")


@dataclass(frozen=True)
class Convert:
    """Write weights in this package's own format: a folder of config.json and model.safetensors, in float16."""

    weights: tyro.conf.Positional[str]
    """A name of `threer models list`, a published file or a folder."""
    out: tyro.conf.Positional[Path]
    """Folder to write."""
    licence: str | None = None
    """Licence of the weights, if a file does not tell; the named weights know theirs."""
    metric: bool = False
    """The coordinates are metres, if a file does not tell."""

    def run(self) -> None:
        from threer.models.inspect import convert

        card = convert(self.weights, self.out, licence=self.licence, metric=self.metric)
        print(f"{self.out} holds {card.family} ({card.licence}), in float16")


@dataclass(frozen=True)
class Pull:
    """Download published weights. A download that was cut off goes on; what came is checked."""

    name: tyro.conf.Positional[str]
    """A name of `threer models list`."""

    def run(self) -> None:
        from threer.models.registry import pull

        entry = pull(self.name)
        print(f"{self.name} ({entry.checkpoint.licence}) is in {', '.join(map(str, entry.paths))}")


Verb = (
    Annotated[ListWeights, tyro.conf.subcommand("list")]
    | Annotated[Info, tyro.conf.subcommand("info")]
    | Annotated[Check, tyro.conf.subcommand("check")]
    | Annotated[Convert, tyro.conf.subcommand("convert")]
    | Annotated[Pull, tyro.conf.subcommand("pull")]
)


def models(verb: tyro.conf.OmitSubcommandPrefixes[tyro.conf.OmitArgPrefixes[Verb]]) -> int:
    """List, look at, check, convert and download weights."""
    verb.run()
    return 0


def _row(name: str, entry: Entry) -> dict[str, Any]:
    card = entry.checkpoint
    if entry.packaged:
        place = "packaged"
    elif entry.paths:
        place = ", ".join(map(str, entry.paths))
    else:
        place = f"not here: threer models pull {name}" if entry.on_hub else "not here: from its authors, by hand"
    size = sum(_size(path) for path in entry.paths) if entry.paths else None
    return {
        "name": name,
        "family": card.family,
        "licence": card.licence,
        "size": size,
        "metric": card.metric,
        "packaged": entry.packaged,
        "on_disk": bool(entry.paths),
        "place": place,
        "description": card.description,
    }


def _size(path: Path) -> int:
    files = (
        [path] if path.is_file() else [file for file in path.iterdir() if file.suffix in (".safetensors", ".json")]
    )
    return sum(file.stat().st_size for file in files)


def _megabytes(size: int | None) -> str:
    return "–" if size is None else f"{size / 1e6:,.0f} MB"
