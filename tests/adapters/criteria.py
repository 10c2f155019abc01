"""Criteria in their original notation, read as data: ``2*ConfLoss(Regr3D(L21,norm_mode='avg_dis'),alpha=0.2)``."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import Any, get_args

from threer.training.losses import Normalization


@dataclass(frozen=True)
class Criterion:
    """name(inner, **options); ``pixel`` is the pixel loss at the bottom (L21, MSE)."""

    name: str
    inner: Criterion | None = None
    pixel: str = "L21"
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def mode(self) -> tuple[Normalization, bool]:
        """(normalisation, whether metric samples keep the truth's scale)."""
        given = self.options.get("norm_mode", "avg_dis") or "none"
        metric, mode = str(given).startswith("?"), str(given).lstrip("?")
        if mode != "none" and mode not in get_args(Normalization):
            raise LookupError(f"no adapter for norm_mode {given!r}")
        return mode, metric  # type: ignore[return-value]

    @property
    def keeps_truth(self) -> bool:
        return bool(self.options.get("gt_scale", False))


def parse(text: str) -> list[tuple[float, Criterion]]:
    """The weighted terms of a criterion."""
    return _terms(ast.parse(text.strip(), mode="eval").body)


def _terms(node: ast.expr) -> list[tuple[float, Criterion]]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _terms(node.left) + _terms(node.right)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        sides = [node.left, node.right]
        factors = [s for s in sides if isinstance(s, ast.Constant)]
        rest = [s for s in sides if not isinstance(s, ast.Constant)]
        if len(factors) == len(rest) == 1:
            return [(float(factors[0].value) * w, c) for w, c in _terms(rest[0])]  # type: ignore[arg-type]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return [(1.0, _criterion(node))]
    raise LookupError(f"no adapter for criterion {ast.unparse(node)!r}")


def _criterion(node: ast.Call) -> Criterion:
    assert isinstance(node.func, ast.Name)
    options = {k.arg: ast.literal_eval(k.value) for k in node.keywords if k.arg}
    first = node.args[0] if node.args else None
    called = first.func if isinstance(first, ast.Call) else first
    if not isinstance(called, ast.Name):
        raise LookupError(f"no adapter for criterion {ast.unparse(node)!r}")
    if isinstance(first, ast.Call) and (first.args or first.keywords):
        inner = _criterion(first)
        return Criterion(node.func.id, inner, inner.pixel, options)
    return Criterion(node.func.id, None, called.id.removesuffix("Loss"), options)
