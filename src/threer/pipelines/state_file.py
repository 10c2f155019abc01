"""What CUT3R remembers of a run, in the run folder: so that unseen views can be asked for later."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from threer.errors import CheckpointError, RunError
from threer.geometry.transforms import is_pose
from threer.io.atomic import replacing
from threer.io.runs.layout import MODEL_STATE
from threer.models.cut3r import CUT3R, State
from threer.pipelines.saving import weights_fingerprint
from threer.types import FloatArray

FORMAT = "1"


@dataclass(frozen=True, eq=False)
class SegmentState:
    """A state of one sample, and which part of a stream it is about.

    anchor  [4, 4] the first camera of that part, in the world frame: the state's own frame
    begun   index of the first frame of that part
    """

    state: State
    anchor: FloatArray
    begun: int


def save_state(folder: Path, segment: SegmentState, model: CUT3R) -> None:
    """Write what ``model`` remembers into a run folder. Raises `RunError` if that is impossible."""
    tensors = {
        "tokens": segment.state.tokens,
        "memory": segment.state.memory,
        "anchor": torch.from_numpy(segment.anchor),
    }
    checkpoint = model.checkpoint
    metadata = {
        "format": FORMAT,
        "weights": checkpoint.name,
        "fingerprint": weights_fingerprint(model),
        "begun": str(segment.begun),
    }
    # Clones: the first state of all is a view of the weights.
    contents = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    with replacing(folder / MODEL_STATE) as part:
        save_file(contents, part, metadata)


def load_state(folder: Path, model: CUT3R) -> SegmentState:
    """What ``model`` remembered when the run in ``folder`` ended, on the device of ``model``.

    Raises `RunError` if there is nothing or it is damaged, `CheckpointError` if other weights have made it.
    """
    path = require_state(folder)
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise RunError(f"{path} is not a state that this version of threer can read; reconstruct again")
            tensors = {name: file.get_tensor(name) for name in ("tokens", "memory", "anchor")}
            begun = int(metadata["begun"])
            weights, fingerprint = metadata["weights"], metadata["fingerprint"]
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise RunError(f"{path} is damaged or no state of CUT3R ({error}); reconstruct again") from None
    if fingerprint != weights_fingerprint(model):
        raise CheckpointError(
            f"{path} was made by the weights {weights!r}, which {model.checkpoint.name!r} are not: only those that "
            "made a state can read it"
        )
    with torch.inference_mode():
        start = model.start()
    expected = {"tokens": start.tokens, "memory": start.memory, "anchor": torch.eye(4, dtype=torch.float64)}
    for name, like in expected.items():
        found = tensors[name]
        if found.shape != like.shape or found.dtype != like.dtype or not found.isfinite().all():
            raise RunError(
                f"{path} is damaged: its {name} should be finite {like.dtype} {list(like.shape)}, got "
                f"{found.dtype} {list(found.shape)}; reconstruct again"
            )
    anchor = tensors["anchor"].numpy()
    if not is_pose(anchor):
        raise RunError(f"{path} is damaged: its anchor is no pose of a camera; reconstruct again")
    device = start.tokens.device
    state = replace(start, tokens=tensors["tokens"].to(device), memory=tensors["memory"].to(device), first=False)
    return SegmentState(state, anchor, begun)


def require_state(folder: Path) -> Path:
    """Where the state in a run folder is. Raises `RunError` if there is none."""
    path = folder / MODEL_STATE
    if not path.is_file():
        raise RunError(f"{folder} holds no {MODEL_STATE}: only runs of cut3r that are complete can be queried")
    return path
