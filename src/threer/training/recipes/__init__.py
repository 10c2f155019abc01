"""Recipes by name: the packaged ones are the TOML files beside this one.

Their ``[published]`` table holds what the original training did differently;
`load_recipe(name, published=True)` lays it over the rest.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from threer.errors import ThreerError
from threer.models.backbone import NetworkConfig
from threer.models.cut3r import CUT3RConfig
from threer.models.dust3r import DUSt3RConfig
from threer.models.fast3r import Fast3RConfig
from threer.models.slam3r import SLAM3RConfig
from threer.training.objectives.settings import OBJECTIVES, ObjectiveSettings
from threer.training.recipes.reading import check_names, read
from threer.training.recipes.recipe import Recipe

NETWORKS: dict[str, type[NetworkConfig]] = {
    "dust3r": DUSt3RConfig,
    "slam3r": SLAM3RConfig,
    "slam3r-i2p": SLAM3RConfig,
    "slam3r-l2w": SLAM3RConfig,
    "cut3r": CUT3RConfig,
    "fast3r": Fast3RConfig,
}


def recipe_names() -> list[str]:
    """The packaged recipes."""
    return sorted(p.name.removesuffix(".toml") for p in files(__name__).iterdir() if p.name.endswith(".toml"))


def load_recipe(
    name_or_path: str | Path, published: bool = False, changes: Sequence[tuple[Sequence[str], Any]] = ()
) -> Recipe:
    """A packaged recipe by name, or one of your own by the path of its TOML file.

    ``published`` takes the original's settings where ours differ on purpose; ``changes`` are laid over everything:
    the path to a setting, ``["batch", "per_device"]``, and its value. Raises ThreerError with one line for
    an unknown name, a file that is not TOML, a key that is not a setting and a value that does not fit.
    """
    text = str(name_or_path)
    if text.endswith(".toml"):
        path, name = Path(name_or_path), Path(name_or_path).stem
        try:
            content = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ThreerError(f"cannot read the recipe {path}: {error}") from None
    elif text in recipe_names():
        name, content = text, (files(__name__) / f"{text}.toml").read_text(encoding="utf-8")
    else:
        raise ThreerError(
            f"unknown recipe {text!r}; valid: {', '.join(recipe_names())}, or the path of a .toml file"
        )
    try:
        table = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise ThreerError(f"recipe {name}: not TOML: {error}") from None
    for setting, value in changes:
        for over in (table, table.get("published", {})):
            if over is table or _holds(over, setting):
                _put(over, setting, value, f"recipe {name}")
    return parse_recipe(name, table, published)


def _holds(table: Mapping[str, Any], path: Sequence[str]) -> bool:
    inner = table.get(path[0])
    return path[0] in table if len(path) == 1 else isinstance(inner, Mapping) and _holds(inner, path[1:])


def _put(table: dict[str, Any], path: Sequence[str], value: Any, where: str) -> None:
    """Set ``table[path[0]][path[1]]…``, making tables on the way."""
    name, *rest = path
    if not rest:
        table[name] = value
        return
    inner = table.setdefault(name, {})
    if not isinstance(inner, dict):
        raise ThreerError(f"{where}.{name} is a value, so it has no {'.'.join(rest)}")
    _put(inner, rest, value, f"{where}.{name}")


def parse_recipe(name: str, table: Mapping[str, Any], published: bool = False) -> Recipe:
    """A recipe from a parsed TOML ``table``; see `load_recipe`."""
    where = f"recipe {name}"
    table = dict(table)
    original = table.pop("published", {})
    check_names(table, _TABLES, where)
    ours = _read(name, table, where)
    # Checked even where it is not asked for.
    theirs = _read(name, _merged(table, original, f"{where}.published"), f"{where} (published)")
    return theirs if published else ours


_TABLES = dict.fromkeys(f.name for f in fields(Recipe) if f.name != "name") | {"published": None}


def _read(name: str, table: Mapping[str, Any], where: str) -> Recipe:
    given = dict(table)
    family = given.get("family")
    if family not in NETWORKS:
        raise ThreerError(f"{where}.family must be one of {', '.join(map(repr, NETWORKS))}, got {family!r}")
    sizes = given.get("network", {})
    if not isinstance(sizes, Mapping):
        raise ThreerError(f"{where}.network must be a table, got {sizes!r}")
    given["network"] = read(NETWORKS[family], sizes, f"{where}.network")
    given["objective"] = _objective(given.get("objective"), f"{where}.objective")
    return read(Recipe, given | {"name": name}, where)


def _objective(table: Any, where: str) -> ObjectiveSettings:
    if not isinstance(table, Mapping) or "name" not in table:
        raise ThreerError(f"{where} must be a table with a name: {', '.join(OBJECTIVES)}")
    options = dict(table)
    name = options.pop("name")
    if name not in OBJECTIVES:
        raise ThreerError(f"{where}.name must be one of {', '.join(map(repr, OBJECTIVES))}, got {name!r}")
    settings: ObjectiveSettings = read(OBJECTIVES[name], options, where)
    return settings


def _merged(table: Mapping[str, Any], over: Any, where: str) -> dict[str, Any]:
    """``over`` laid over ``table``, tables into tables."""
    if not isinstance(over, Mapping):
        raise ThreerError(f"{where} must be a table, got {over!r}")
    merged = dict(table)
    for name, value in over.items():
        below = merged.get(name)
        merged[name] = _merged(below, value, f"{where}.{name}") if isinstance(below, Mapping) else value
    return merged
