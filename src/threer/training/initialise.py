"""Start a network from another family's weights, by rules over tensor names.

CroCo starts DUSt3R; DUSt3R starts SLAM3R, CUT3R and Fast3R (training.md sections 3 to 6, keymap.md 4 to 7).
Both sides are in our names; published files are renamed first. What a network takes is decided by its rules alone:
a tensor that should be there and is not, or has another shape, is an error, and so is one that no rule knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from threer.errors import CheckpointError, ThreerError
from threer.models import keymap
from threer.models.checkpoints import check_sums, is_own_format, read_card
from threer.models.files import read_weights
from threer.models.keymap import Rule
from threer.models.official import detect_family
from threer.training.networks import Network
from threer.training.recipes.recipe import Family, Initialisation

State = Mapping[str, Tensor]

_TRUNK = [Rule(r"((?:encoder|encoder_norm|bridge|decoder|decoder_norm)\..*)", r"\1")]
_HEADS = [Rule(r"((?:first|second)_head\..*)", r"\1")]
_ENCODER = [Rule(r"((?:encoder|encoder_norm)\..*)", r"\1")]
_FIRST_HEAD = "first_head."
_DROPPED = [Rule(r".*", None)]

_RULES: dict[tuple[str, str], list[Rule]] = {
    # CroCo has one decoder, which starts both streams, and no heads.
    ("croco", "dust3r"): _TRUNK,
    ("dust3r", "slam3r-i2p"): [*_TRUNK, *_HEADS],
    ("dust3r", "slam3r-l2w"): [*_TRUNK, *_HEADS],
    ("dust3r", "fast3r"): [*_ENCODER, Rule(r"first_head\.(.*)", r"global_head.\1"), *_DROPPED],
}
_FRESH: dict[str, tuple[str, ...]] = {
    "slam3r-i2p": ("affinity_head.",),
    "slam3r-l2w": ("point_embed.",),
}
"""What the family has and DUSt3R has not."""


@dataclass(frozen=True)
class Report:
    """Names of the network's tensors: taken from the weights, and left random. ``unused`` are the weights' own."""

    taken: tuple[str, ...]
    random: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{len(self.taken)} tensors taken, {len(self.random)} left random ({_groups(self.random)}), "
            f"{len(self.unused)} not used ({_groups(self.unused)})"
        )


def initialise(model: Network, family: Family, state: State, init: Initialisation) -> Report:
    """Fill ``model`` of ``family`` with the tensors ``state`` of ``init.family``; see `read_state`.

    Raises CheckpointError, naming the tensor, when one is missing, has another shape, or belongs nowhere, and
    ThreerError when there are no rules from one family to the other.
    """
    if family == "slam3r" and init.family == "dust3r":
        return _both_halves(model, state, init)
    wanted = model.state_dict()
    moved, unused = _moved(state, family, init, wanted)
    foreign = [name for name in moved if name not in wanted]
    if foreign:
        raise CheckpointError(f"{family} has no place for tensor {foreign[0]} of {init.family}")
    may_be_random = _may_be_random(family, init, wanted, moved)
    random = [name for name in wanted if name not in moved]
    missing = [name for name in random if not name.startswith(may_be_random)]
    if missing:
        raise CheckpointError(f"the {init.family} weights hold no tensor for {missing[0]} of {family}")
    for name, tensor in moved.items():
        if tensor.shape != wanted[name].shape:
            raise CheckpointError(
                f"tensor {name} has shape {list(tensor.shape)} in the {init.family} weights, "
                f"{list(wanted[name].shape)} in this {family}"
            )
    with torch.no_grad():
        for name, tensor in moved.items():
            wanted[name].copy_(tensor)
    return Report(tuple(moved), tuple(random), tuple(unused))


def read_state(path: Path, family: str) -> dict[str, Tensor]:
    """Tensors of a file or folder of ``family`` in our names, both streams of the decoder filled.

    Takes our own format, a bare file of our own names, and published files. Raises CheckpointError.
    """
    if is_own_format(path):
        check_sums(path, read_card(path))
        return dict(read_weights(path).tensors)
    state = keymap.strip_prefix(read_weights(path).tensors)
    found = detect_family(state)
    if found is None:
        if any(name.startswith(("encoder.blocks.", "i2p.")) for name in state):
            return dict(state)
        raise CheckpointError(f"{path} is not a network known here: it begins with {next(iter(state), None)}")
    if found.replace("_", "-") != family:
        raise CheckpointError(f"{path} is {found.replace('_', '-')}, expected {family}")
    return from_published(found, state)


def from_published(found: str, state: State) -> dict[str, Tensor]:
    """Tensors under published names in ours. ``found`` as of `detect_family`."""
    if found == "croco":
        if any(name in state for name in ("enc_pos_embed", "dec_pos_embed")):
            raise CheckpointError(
                "this CroCo adds positions to its tokens; only version 2, which does not, starts DUSt3R"
            )
        found = "dust3r"
    if found == "dust3r":
        state = keymap.duplicate_decoder(state, "dec_blocks2")
    rules = {
        "dust3r": keymap.DUST3R,
        "slam3r_i2p": keymap.SLAM3R_I2P,
        "slam3r_l2w": keymap.SLAM3R_L2W_WITH_ENCODER,
        "cut3r": keymap.CUT3R,
        "fast3r": keymap.FAST3R,
    }[found]
    renamed = {}
    for name, tensor in state.items():
        known, target = keymap.rename(name, rules)
        if not known:
            raise CheckpointError(f"nothing here takes tensor {name}")
        if target is not None:
            renamed[target] = tensor
    return renamed


def _moved(state: State, family: str, init: Initialisation, wanted: State) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors that ``family`` takes, under its names, and the names of those it does not."""
    moved, unused = {}, []
    rules = _rules(family, init)
    for name, tensor in state.items():
        known, target = keymap.rename(name, rules)
        if not known:
            raise CheckpointError(f"no rule takes tensor {name} of {init.family} to {family}")
        if target is None:
            unused.append(name)
        else:
            moved[target] = tensor
    if family == "cut3r" and init.family == "dust3r":  # the one decoder starts the state's half, too
        first, second = "decoder.first.", "decoder.second."
        moved |= {second + name.removeprefix(first): t for name, t in moved.items() if name.startswith(first)}
        if init.heads:
            for name in ("local_head.", "world_head."):
                moved |= _widened(state, wanted, name)
            unused = [name for name in unused if not name.startswith(_FIRST_HEAD)]
    if family == "fast3r" and init.family == "dust3r":
        head = [name for name in wanted if name.startswith("global_head.")]
        # The head goes along only as a whole: its width is the decoder's.
        if any(name not in moved or moved[name].shape != wanted[name].shape for name in head):
            unused += [name for name in state if name.startswith("first_head.")]
            moved = {name: t for name, t in moved.items() if not name.startswith("global_head.")}
    return moved, unused


def _widened(state: State, wanted: State, head: str) -> dict[str, Tensor]:
    """DUSt3R's first head, one linear layer, as a ``head`` of two: gelu(x) - gelu(-x) is x.

    Hidden units that this leaves over stay random, and are not listened to at first. Raises ThreerError where one
    of the heads is of another kind, or where the layers do not fit.
    """
    up, down = f"{head}linear.up.", f"{head}linear.down."
    weight, bias = state.get(f"{_FIRST_HEAD}linear.weight"), state.get(f"{_FIRST_HEAD}linear.bias")
    if weight is None or bias is None or f"{up}weight" not in wanted:
        raise ThreerError("init.heads is for linear heads, in the weights and in the network")
    dim = weight.shape[1]
    hidden = wanted[f"{up}weight"].clone()
    listened = torch.zeros_like(wanted[f"{down}weight"])
    if hidden.shape[1] != dim or len(hidden) < 2 * dim or len(listened) != len(weight):
        raise CheckpointError(
            f"init.heads: the weights' head, {list(weight.shape)}, does not fit into {head}linear, "
            f"{list(hidden.shape)} and {list(listened.shape)}; set init.heads=false"
        )
    same = torch.eye(dim, dtype=hidden.dtype, device=hidden.device)
    hidden[: 2 * dim] = torch.cat([same, -same])
    offset = wanted[f"{up}bias"].clone()
    offset[: 2 * dim] = 0
    listened[:, : 2 * dim] = torch.cat([weight, -weight], dim=1)
    moved = {f"{up}weight": hidden, f"{up}bias": offset, f"{down}weight": listened, f"{down}bias": bias}
    if f"{_FIRST_HEAD}pixel_bias" in state:
        moved[f"{head}pixel_bias"] = state[f"{_FIRST_HEAD}pixel_bias"]
    return moved


def _rules(family: str, init: Initialisation) -> list[Rule]:
    if family == init.family:
        heads = [Rule(r".*_head\..*", None)] if init.new_head else []
        return [*heads, Rule(r"(.*)", r"\1")]
    if (init.family, family) == ("dust3r", "cut3r"):
        decoder = [Rule(r"((?:bridge|decoder_norm)\..*)", r"\1"), Rule(r"(decoder\.first\..*)", r"\1")]
        return [*_ENCODER, *(decoder if init.decoder else []), *_DROPPED]
    if (init.family, family) not in _RULES:
        known = ", ".join(f"{a} to {b}" for a, b in [*_RULES, ("dust3r", "cut3r"), ("dust3r", "slam3r")])
        raise ThreerError(f"no rules lead from {init.family} to {family}; known: {known}, and each to itself")
    return _RULES[init.family, family]


def _may_be_random(family: str, init: Initialisation, wanted: State, moved: State) -> tuple[str, ...]:
    """Prefixes of the tensors that need not be in the weights."""
    if family == init.family:
        heads = tuple(name for name in wanted if "_head." in name) if init.new_head else ()
        stem = any(".stem." in name for name in moved)  # weights that were trained without one start it at nothing
        return heads if stem else (*heads, *(name for name in wanted if ".stem." in name))
    if init.family == "croco":
        return ("first_head.", "second_head.")
    if family in ("cut3r", "fast3r"):
        taken = {"encoder", "encoder_norm"}
        if family == "cut3r" and init.decoder:
            taken |= {"bridge", "decoder_norm", "decoder"}
        if family == "cut3r" and init.heads:
            taken |= {"local_head", "world_head"}
        return tuple(name for name in wanted if not name.startswith(tuple(f"{t}." for t in taken)))
    return _FRESH[family]


def _both_halves(model: Network, state: State, init: Initialisation) -> Report:
    """DUSt3R into both halves of SLAM3R; Local-to-World reads Image-to-Points' encoder and has none."""
    reports = []
    for half, module in model.named_children():
        given = state if half == "i2p" else {k: t for k, t in state.items() if not k.startswith("encoder.")}
        if half == "l2w" and getattr(module, "point_prior", False):
            # Its heads move points that are given, so they have neither rays nor a mean pointmap of their own.
            given = {k: t for k, t in given.items() if not k.endswith("_head.pixel_bias")}
        family: Family = "slam3r-i2p" if half == "i2p" else "slam3r-l2w"
        reports.append((half, initialise(module, family, given, init)))  # type: ignore[arg-type]
    return Report(
        tuple(f"{half}.{name}" for half, report in reports for name in report.taken),
        tuple(f"{half}.{name}" for half, report in reports for name in report.random),
        tuple(name for _, report in reports for name in report.unused),
    )


def _groups(names: tuple[str, ...]) -> str:
    """The first parts of ``names``, each once."""
    return ", ".join(dict.fromkeys(name.partition(".")[0] for name in names)) or "none"
