"""Checks that several settings share: `ThreerError` with the name and the value. None is never wrong."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from threer.errors import ThreerError


def at_least(config: Any, **least: float) -> None:
    """Each named field is at least so large."""
    for name, limit in least.items():
        value = getattr(config, name)
        if value is not None and not value >= limit:
            raise ThreerError(f"{name} must be at least {limit}, got {value}")


def finite(config: Any, *names: str) -> None:
    """No infinities, no NaN."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not math.isfinite(value):
            raise ThreerError(f"{name} must be a finite number, got {value}")


def positive(config: Any, *names: str) -> None:
    """Above 0."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not value > 0:
            raise ThreerError(f"{name} must be positive, got {value}")


def share(config: Any, name: str) -> None:
    """Above 0 and at most 1."""
    if not 0 < getattr(config, name) <= 1:
        raise ThreerError(f"{name} must be above 0 and at most 1, got {getattr(config, name)}")


def share_below_one(config: Any, name: str) -> None:
    """At least 0 and below 1."""
    if not 0 <= getattr(config, name) < 1:
        raise ThreerError(f"{name} must be at least 0 and below 1, got {getattr(config, name)}")


def check_choices(config: Any) -> None:
    """Every field declared as a `Literal` has one of its values."""
    for name, known in _choices(type(config)).items():  # type: ignore[arg-type]  # classes are hashable
        value = getattr(config, name)
        if value not in known:
            words = " or ".join(known) if len(known) == 2 else f"one of {', '.join(known)}"
            raise ThreerError(f"{name} must be {words}, got {value!r}")


@cache
def _choices(kind: type) -> dict[str, tuple[Any, ...]]:
    hints = get_type_hints(kind)
    return {name: get_args(hint) for name, hint in hints.items() if get_origin(hint) is Literal}
