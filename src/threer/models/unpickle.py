"""Reading PyTorch pickles without running anything in them, and constructor calls as data.

Published `.pth` files hold, next to the tensors, training settings: an argparse Namespace or an OmegaConf object
whose ``model`` is the text of a constructor call. Only what is named here may be unpickled.
"""

from __future__ import annotations

import argparse
import ast
import collections
import math
import pickle
import re
import typing
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from threer.errors import CheckpointError
from threer.models.access import reading


class OmegaConfStub:
    """Stands in for OmegaConf's containers and nodes: keeps their state, does nothing."""

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {"_state": state})


_STUBBED = (
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.nodes.AnyNode",
    "omegaconf.nodes.StringNode",
    "omegaconf.nodes.IntegerNode",
    "omegaconf.nodes.FloatNode",
    "omegaconf.nodes.BooleanNode",
)


def _allowed() -> list[Any]:
    # One class for each name: the restricted unpickler tells classes apart by identity.
    stubs = [(type(name.rsplit(".")[-1], (OmegaConfStub,), {}), name) for name in _STUBBED]
    plain = [dict, list, str, int, float, bool, collections.defaultdict]
    return [argparse.Namespace, (typing.Any, "typing.Any"), *plain, *stubs]


def read_pickle(path: Path) -> Any:
    """The contents of a PyTorch file, tensors on the CPU. Raises CheckpointError: damaged, or unsafe to read."""
    with reading(path):
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(2)
    if start == b"PK" and not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} is truncated: its table of contents is missing ({size:,} bytes are there)")
    try:
        with torch.serialization.safe_globals(_allowed()), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a pickle that is not torch's: the error says it
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error)) or re.search(r"class (\S+)", str(error))
        what = f"it names {found[1]}" if found else "it is not a PyTorch weight file"
        raise CheckpointError(f"{path} holds more than weights and is not read: {what}") from None
    except Exception as error:  # there is no end to what a damaged file makes an unpickler do
        first = re.split(r"[.\n]", str(error))[0] or type(error).__name__
        raise CheckpointError(f"{path} is damaged: {first} ({size:,} bytes)") from None


def constructor_text(contents: Any) -> str | None:
    """``args.model`` of an unpickled training checkpoint, or None."""
    args = contents.get("args") if isinstance(contents, dict) else None
    if isinstance(args, OmegaConfStub):
        node = (getattr(args, "_content", None) or {}).get("model")
        text = getattr(node, "_val", node)
    else:
        text = getattr(args, "model", None)
    return text if isinstance(text, str) else None


def parse_constructor(text: str) -> tuple[str, dict[str, Any]]:
    """Name and arguments of a constructor call such as ``Name(size=(224, 224), mode=('exp', -inf, inf))``.

    The text is data: only literals and ``inf`` are understood, nothing is evaluated. Of a call that wraps another
    one, as in ``Model(ModelConfig(size=1))``, the arguments of both are returned under the outer name. Raises
    CheckpointError.
    """
    try:
        node = ast.parse(text.strip(), mode="eval").body
        return _call(node)
    except (SyntaxError, ValueError, TypeError, RecursionError):
        shown = text if len(text) < 100 else text[:100] + "…"
        raise CheckpointError(f"not a constructor call with plain values: {shown}") from None


def _call(node: ast.expr) -> tuple[str, dict[str, Any]]:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise ValueError("not a call")
    arguments: dict[str, Any] = {}
    for wrapped in node.args:
        arguments |= _call(wrapped)[1]
    for keyword in node.keywords:
        if keyword.arg is None:
            raise ValueError("no name")
        arguments[keyword.arg] = _value(keyword.value)
    return node.func.id, arguments


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id="inf"):
            return math.inf
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.Tuple(elts=items):
            return tuple(_value(item) for item in items)
        case ast.List(elts=items):
            return [_value(item) for item in items]
        case ast.Dict(keys=keys, values=values):
            return {_value(k): _value(v) for k, v in zip(keys, values, strict=True) if k is not None}
    raise ValueError("not a plain value")
