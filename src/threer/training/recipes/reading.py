"""From parsed TOML to frozen dataclasses: every key and every value checked, one line for what is wrong."""

from __future__ import annotations

import dataclasses
import difflib
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from threer.errors import ThreerError

T = TypeVar("T")


def read(kind: type[T], table: Mapping[str, Any], where: str) -> T:
    """An instance of the dataclass ``kind`` from ``table``. ``where`` names the table in messages.

    Nested dataclasses are tables, ``dict[str, dataclass]`` tables of tables, tuples arrays. Raises ThreerError for
    a key that is not a field, a missing field without a default, and a value of another type.
    """
    hints = get_type_hints(kind)
    known = {f.name: f for f in dataclasses.fields(kind) if f.init}  # type: ignore[arg-type]
    check_names(table, known, where)
    for name, field in known.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in table:
            raise ThreerError(f"{where} misses {name!r}")
    values = {name: _value(hints[name], table[name], f"{where}.{name}") for name in table}
    try:
        return kind(**values)
    except ThreerError as error:
        raise ThreerError(f"{where}: {error}") from None


def check_names(table: Mapping[str, Any], known: Mapping[str, Any], where: str) -> None:
    """Raise ThreerError for the first key of ``table`` that is not ``known``, listing those that are."""
    for name in table:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else "."
            raise ThreerError(f"{where} has no setting {name!r}{hint} Valid: {', '.join(known)}")


def _value(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(value):  # read before
        return value
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        (inner,) = (a for a in arguments if a is not type(None))
        return _value(inner, value, where)  # TOML has no null: what is None is left out
    if origin is Literal:
        if value not in arguments:
            raise ThreerError(f"{where} must be one of {', '.join(map(repr, arguments))}, got {value!r}")
        return value
    if origin is tuple:
        return _tuple(arguments, value, where)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ThreerError(f"{where} must be a table, got {value!r}")
        return {name: _value(arguments[1], inner, f"{where}.{name}") for name, inner in value.items()}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise ThreerError(f"{where} must be a table, got {value!r}")
        return read(kind, value, where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise ThreerError(f"{where} must be {_NAMES[kind]}, got {value!r}")
    return value


def _tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ThreerError(f"{where} must be an array, got {value!r}")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(value) != len(arguments):
        raise ThreerError(f"{where} must have {len(arguments)} entries, got {value!r}")
    return tuple(_value(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(zip(arguments, value, strict=True)))


_NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
