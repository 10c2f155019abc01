"""Networks from files: published ones, and our own format.

Our own format is a folder: `config.json` (family, settings, card with licence, checksum) and `model.safetensors`
(our own names, float16, the encoder stored once). Several checkpoints may share one file that holds their encoder.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from threer.errors import CheckpointError, ThreerError
from threer.models import keymap
from threer.models.access import reading, writing
from threer.models.arguments import as_published
from threer.models.backbone import NetworkConfig
from threer.models.cut3r import CUT3R, CUT3RConfig
from threer.models.dust3r import DUSt3R, DUSt3RConfig
from threer.models.encoders import encoder_prefix, set_apart
from threer.models.fast3r import Fast3R, Fast3RConfig
from threer.models.files import (
    CONFIG,
    WEIGHTS,
    read_json,
    read_weights,
    sha256_of,
    write_shards,
)
from threer.models.official import Network, detect_family, from_official
from threer.models.slam3r import SLAM3R, ImageToPoints, LocalToWorld, SLAM3RConfig
from threer.types import Checkpoint

FORMAT = 1
Model = DUSt3R | SLAM3R | CUT3R | Fast3R
Role = Literal["streaming", "recurrent", "joint", "pairwise"]


@dataclass(frozen=True)
class Family:
    """A kind of network.

    config  its settings
    build   makes it from them
    role    how it takes frames: which of the pipelines runs it
    """

    network: type[Model]
    config: type[NetworkConfig]
    build: Callable[[Any], Model]
    role: Role


FAMILIES = {
    "slam3r": Family(SLAM3R, SLAM3RConfig, SLAM3R.from_config, "streaming"),
    "dust3r": Family(DUSt3R, DUSt3RConfig, DUSt3R, "pairwise"),
    "cut3r": Family(CUT3R, CUT3RConfig, CUT3R, "recurrent"),
    "fast3r": Family(Fast3R, Fast3RConfig, Fast3R, "joint"),
}
"""Every network that can be saved, loaded and run: a new one is one file, and one line here."""
FAMILY_NAMES = {
    "dust3r": "DUSt3R",
    "slam3r_i2p": "SLAM3R's Image-to-Points half",
    "slam3r_l2w": "SLAM3R's Local-to-World half",
    "cut3r": "CUT3R",
    "fast3r": "Fast3R",
    "croco": "CroCo, which only starts a training",
}
_OWN_NAMES = ("encoder.blocks.", "i2p.encoder.blocks.")  # how tensors of our own format are called, and no others
UNKNOWN_LICENCE = "unknown: ask whoever made the file"
T = TypeVar("T")


def load_path(path: Path) -> Model:
    """A network from a file or folder: our own format, a published one, or a folder with both halves of SLAM3R.

    Published settings are changed as published inference does (plain patch embedding, maps in image orientation).
    Raises CheckpointError.
    """
    model: Model
    if is_own_format(path):
        return load_checkpoint(path)
    with reading(path):
        halves = find_halves(path) if path.is_dir() else None
    if halves:
        model = load_slam3r(*halves)
        files = tuple(str(half) for half in halves)
    else:
        network = load_published(path)
        if isinstance(network, ImageToPoints | LocalToWorld):
            half = FAMILY_NAMES["slam3r_i2p" if isinstance(network, ImageToPoints) else "slam3r_l2w"]
            raise CheckpointError(f"{path} is {half}; give a folder that holds both (names containing i2p and l2w)")
        model, files = network, (str(path),)
    model.checkpoint = Checkpoint(path.name, family_of(model), files, UNKNOWN_LICENCE)
    return model


def is_own_format(path: Path) -> bool:
    """Whether ``path`` is a folder in our own format, whole or not. Raises CheckpointError if it cannot be read."""
    with reading(path):
        return path.is_dir() and (path / CONFIG).is_file() and "threer" in read_json(path / CONFIG)


def family_of(model: Model) -> str:
    """The key of ``model`` in `FAMILIES`."""
    return next(name for name, family in FAMILIES.items() if isinstance(model, family.network))


def find_halves(folder: Path) -> tuple[Path, Path] | None:
    """The entries of ``folder`` that are SLAM3R's halves by name: (i2p, l2w), or None."""
    found = []
    for part in ("i2p", "l2w"):
        named = sorted(
            entry
            for entry in folder.iterdir()
            if part in entry.name.lower() and (entry.is_dir() or entry.suffix in (".pth", ".pt", ".safetensors"))
        )
        if not named:
            return None
        found.append(named[0])
    return found[0], found[1]


def load_slam3r(i2p: Path, l2w: Path) -> SLAM3R:
    """SLAM3R from the published files or folders of its halves."""
    first = load_published(i2p, "slam3r_i2p")
    second = load_published(l2w, "slam3r_l2w")
    assert isinstance(first, ImageToPoints)
    assert isinstance(second, LocalToWorld)
    if first.config.enc_dim != second.config.enc_dim:
        raise CheckpointError(
            f"{i2p} and {l2w} do not belong together: encoder widths {first.config.enc_dim} and "
            f"{second.config.enc_dim}"
        )
    return SLAM3R(first, second).eval()


def load_published(path: Path, expected: str | None = None) -> Network:
    """DUSt3R, CUT3R, Fast3R or one half of SLAM3R from a published file or folder.

    ``expected`` is the family that must be in it. Raises CheckpointError, which names the file and what is wrong.
    """
    contents = read_weights(path)
    state = keymap.strip_prefix(contents.tensors)
    family = detect_family(state)
    if family is None:
        if any(name.startswith(_OWN_NAMES) for name in state):
            raise CheckpointError(
                f"{path} holds weights in threer's own format, without what their {CONFIG} says of them; give the "
                f"folder in which {WEIGHTS} and that {CONFIG} lie together"
            )
        name = next(iter(state), None)
        raise CheckpointError(f"{path} is not a network known here: it begins with tensor {name}")
    if expected not in (None, family):
        raise CheckpointError(f"{path} is {FAMILY_NAMES[family]}, expected {FAMILY_NAMES[str(expected)]}")
    if family == "croco":
        raise CheckpointError(f"{path} is {FAMILY_NAMES[family]}; it cannot be loaded as a network")
    arguments = as_published(contents.arguments)
    if family == "slam3r_l2w":  # tokens come from the other half's encoder, of which this is a copy
        arguments["need_encoder"] = False
    settings = path / CONFIG if path.is_dir() else path
    return _building(settings, lambda: from_official(family, arguments, state))


def save_checkpoint(
    model: Model, folder: Path, card: Checkpoint, shard: int | None = None, encoder: str | None = None
) -> None:
    """Write ``model`` to ``folder`` in our own format; name, licence, metric and description come from ``card``.

    ``shard``, if given, is the size in bytes that no file of weights exceeds. ``encoder``, if given, is the path of
    the file that is to hold the encoder, seen from ``folder``: it is written if it is not there, and shared if it
    is. Weights are rounded to float16. Raises CheckpointError when one does not fit, when the file holds another
    encoder, or the folder cannot be written.
    """
    config = model.i2p.config if isinstance(model, SLAM3R) else model.config
    tensors = {}
    for name, tensor in model.state_dict().items():
        half = tensor.detach().to("cpu", torch.float16).contiguous()
        if not torch.isfinite(half).all():
            raise CheckpointError(f"tensor {name} does not fit into float16 or is not finite")
        tensors[name] = half
    apart = {}
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if encoder is not None:
            prefix = encoder_prefix(model)
            tensors = set_apart(tensors, folder / encoder, prefix)
            apart = {"encoder": {"file": encoder, "prefix": prefix}}
        files = [*write_shards(tensors, folder, shard), *([encoder] if encoder else [])]
    described = {
        "threer": FORMAT,
        "family": family_of(model),
        "config": config.to_dict(),
        **apart,
        "card": {
            "name": card.name,
            "licence": card.licence,
            "metric": card.metric,
            "description": card.description,
        },
        "sha256": {file: sha256_of(folder / file) for file in files},
    }
    with writing(folder):
        (folder / CONFIG).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def load_checkpoint(folder: Path) -> Model:
    """Read what `save_checkpoint` wrote. Raises CheckpointError."""
    model, card = empty_network(folder), read_card(folder)
    tensors = read_weights(folder).tensors
    check_sums(folder, card)
    _naming(folder, lambda: keymap.fill(model, tensors))
    model.checkpoint = card
    return model.eval()


def check_sums(folder: Path, card: Checkpoint) -> None:
    """Raise CheckpointError unless the weight files of ``folder`` are those that its card describes."""
    for file, wanted in card.sha256.items():
        if sha256_of(folder / file) != wanted:
            raise CheckpointError(f"{folder / file} is not the file that {CONFIG} describes: its SHA-256 differs")


def empty_network(folder: Path) -> Model:
    """The network of a checkpoint in our own format, on the meta device: shapes without values.

    Raises CheckpointError.
    """
    described = read_json(folder / CONFIG)
    if described.get("threer") != FORMAT:
        raise CheckpointError(
            f"{folder} has checkpoint format {described.get('threer')}, this version reads {FORMAT}; update threer"
        )
    family, settings = FAMILIES[read_card(folder).family], described.get("config")
    if not isinstance(settings, dict):
        raise CheckpointError(f'{folder / CONFIG} holds no settings under "config"; copy it again, whole')
    with torch.device("meta"):
        return _building(folder / CONFIG, lambda: family.build(family.config.from_dict(settings)))


def read_card(folder: Path) -> Checkpoint:
    """Name, licence and the rest of a checkpoint in our own format, without its weights."""
    described = read_json(folder / CONFIG)
    card, family, sha256 = described.get("card"), described.get("family"), described.get("sha256", {})
    if not isinstance(family, str) or not isinstance(card, dict) or not isinstance(sha256, dict):
        raise CheckpointError(f"{folder / CONFIG} describes no checkpoint: it needs a card and a family")
    if family not in FAMILIES:
        raise CheckpointError(
            f"{folder / CONFIG} is of the family {family!r}, known here are {', '.join(FAMILIES)}; import what "
            "adds it to FAMILIES first"
        )
    return Checkpoint(
        name=str(card.get("name", folder.name)),
        family=str(family),
        files=(str(folder / WEIGHTS),),
        licence=str(card.get("licence", UNKNOWN_LICENCE)),
        metric=bool(card.get("metric", False)),
        description=str(card.get("description", "")),
        sha256=sha256,
    )


def _naming(path: Path, action: Callable[[], T]) -> T:
    """Put the file's name in front of an error about its contents."""
    try:
        return action()
    except ThreerError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _building(path: Path, action: Callable[[], T]) -> T:
    """Make a network of the settings in ``path``, whatever values stand there."""
    try:
        return _naming(path, action)
    except (TypeError, ValueError, LookupError, ArithmeticError, RuntimeError, AttributeError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"{path}: its settings make no network ({reason}); get it again, whole") from error
