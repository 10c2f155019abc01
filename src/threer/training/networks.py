"""The network of a recipe, and which of its parameters learn."""

from __future__ import annotations

from fnmatch import fnmatchcase

from torch import nn

from threer.errors import ThreerError
from threer.models.cut3r import CUT3R, CUT3RConfig
from threer.models.dust3r import DUSt3R, DUSt3RConfig
from threer.models.fast3r import Fast3R, Fast3RConfig
from threer.models.slam3r import SLAM3R, ImageToPoints, LocalToWorld, SLAM3RConfig
from threer.training.recipes.recipe import Recipe

Network = DUSt3R | ImageToPoints | LocalToWorld | SLAM3R | CUT3R | Fast3R


def build(recipe: Recipe) -> Network:
    """The network of ``recipe`` with random weights, drawn from torch's own generator.

    Local-to-World alone has an encoder of its own, as it is trained; checkpoints of inference have none.
    """
    config = recipe.network
    if isinstance(config, DUSt3RConfig):
        return DUSt3R(config)
    if isinstance(config, CUT3RConfig):
        return CUT3R(config)
    if isinstance(config, Fast3RConfig):
        return Fast3R(config)
    assert isinstance(config, SLAM3RConfig)
    if recipe.family == "slam3r-i2p":
        return ImageToPoints(config)
    if recipe.family == "slam3r-l2w":
        return LocalToWorld(config, encoder=True)
    return SLAM3R.from_config(config)


def mark_trainable(model: nn.Module, recipe: Recipe) -> list[str]:
    """Set ``requires_grad`` as the recipe says; the names of what is trained.

    Raises ThreerError for a pattern that no parameter has.
    """
    names = [name for name, _ in model.named_parameters()]
    for where, patterns in (("train", recipe.train), ("freeze", recipe.freeze)):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ThreerError(f"recipe {recipe.name}.{where}: no parameter is called {pattern!r}")
    trained = []
    for name, parameter in model.named_parameters():
        chosen = any(fnmatchcase(name, p) for p in recipe.train)
        parameter.requires_grad_(chosen and not any(fnmatchcase(name, p) for p in recipe.freeze))
        if parameter.requires_grad:
            trained.append(name)
    if not trained:
        raise ThreerError(f"recipe {recipe.name} trains nothing: everything is frozen")
    return trained
