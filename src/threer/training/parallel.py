"""One process or many, whole or sharded: what the trainer needs to know of it, on Lightning Fabric."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from threer.errors import ThreerError
from threer.training.networks import Network

T = TypeVar("T")


class Inside(nn.Module):
    """Runs an action on the network inside `forward`, where autocast, DDP and FSDP are at work.

    Objectives call what they like of a network (`encode`, `register`, `rollout`), several times before a backward;
    wrapped this way, all of it is one forward.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, action: Callable[[Network], T]) -> T:
        return action(self.network)


def make_fabric(device: str, strategy: str, half: bool) -> Any:
    """A launched `lightning.fabric.Fabric`.

    Under torchrun (or another launcher that Fabric knows) it spans all of its processes: ``strategy`` "ddp" has the
    network whole in each, "fsdp" deals it out. Raises ThreerError for a device or strategy that is not there.
    """
    try:
        from lightning.fabric import Fabric
        from lightning.fabric.strategies.ddp import DDPStrategy
        from lightning.fabric.strategies.model_parallel import ModelParallelStrategy
    except ImportError:
        raise ThreerError("training needs Lightning: pip install 'threer[train]'") from None
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    if device == "cuda" and not torch.cuda.is_available():
        raise ThreerError("there is no CUDA device here; choose --device cpu")
    local, world = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), int(os.environ.get("WORLD_SIZE", "1"))
    chosen: Any = "auto"
    if world > 1:
        kinds: dict[str, Callable[[], Any]] = {
            # the retrieval score, and whatever a batch has no use for, gets no gradient
            "ddp": lambda: DDPStrategy(find_unused_parameters=True),
            "fsdp": lambda: ModelParallelStrategy(shard, data_parallel_size=world, tensor_parallel_size=1),
        }
        if strategy not in kinds:
            raise ThreerError(f"unknown strategy {strategy!r}; valid: {', '.join(kinds)}")
        chosen = kinds[strategy]()
    fabric = Fabric(
        accelerator="gpu" if device == "cuda" else device,
        devices=local,
        num_nodes=max(1, world // local),
        strategy=chosen,
        precision="bf16-mixed" if half else "32-true",
    )
    fabric.launch()
    return fabric


def shard(module: nn.Module, mesh: Any) -> nn.Module:
    """Deal the parameters out over the data-parallel processes, block by block (FSDP)."""
    from torch.distributed.fsdp import fully_shard

    for inner in module.modules():
        if isinstance(inner, nn.ModuleList):
            for block in inner:
                fully_shard(block, mesh=mesh["data_parallel"], reshard_after_forward=True)
    # the outermost, too: between forwards the trainer swaps the weights for their running mean
    fully_shard(module, mesh=mesh["data_parallel"], reshard_after_forward=True)
    return module


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which each process may have a part, as a whole; all processes must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def as_dealt(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor on the device of ``like``, dealt out as it is."""
    value = value.to(like.device)
    return distribute_tensor(value, like.device_mesh, like.placements) if isinstance(like, DTensor) else value


def whole_tree(value: Any) -> Any:
    """Tensors anywhere in dictionaries and lists, whole and on the CPU."""
    if isinstance(value, Tensor):
        return whole(value.detach()).cpu()
    if isinstance(value, dict):
        return {key: whole_tree(inner) for key, inner in value.items()}
    return [whole_tree(inner) for inner in value] if isinstance(value, list | tuple) else value


@torch.no_grad()
def fill(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Copy whole tensors into a network that may be dealt out. Names must agree."""
    own = model.state_dict()
    if own.keys() != state.keys():
        raise ThreerError(f"the state has other tensors, such as {next(iter(own.keys() ^ state.keys()))}")
    for name, tensor in own.items():
        tensor.copy_(as_dealt(state[name], tensor))


def fill_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a state of whole tensors into an optimiser whose parameters may be dealt out."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    per_parameter = {
        index: {
            name: as_dealt(v, parameters[index]) if isinstance(v, Tensor) and v.ndim else v
            for name, v in values.items()
        }
        for index, values in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": per_parameter})


def from_first(values: list[float], device: torch.device) -> list[float]:
    """The first process's numbers, in all processes."""
    if not (dist.is_available() and dist.is_initialized()):
        return values
    shared = torch.tensor(values, dtype=torch.float64, device=device)
    dist.broadcast(shared, 0)
    numbers: list[float] = shared.tolist()
    return numbers


def from_all(value: Any) -> list[Any]:
    """Every process's value, in all processes."""
    if not (dist.is_available() and dist.is_initialized()):
        return [value]
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def mean_of_all(tensor: Tensor) -> Tensor:
    """Mean over the processes."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(tensor)
        tensor = tensor / dist.get_world_size()
    return tensor
