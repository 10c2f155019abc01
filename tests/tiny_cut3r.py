"""CUT3R with a few thousand weights, and one that knows the truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from threer.geometry.transforms import apply, invert, pose_from_quaternion
from threer.models.cut3r import CUT3R, CUT3RConfig, State
from threer.types import Checkpoint, Frame, Pointmap, Prediction, View

SIZES = {"image_size": 32, "enc_dim": 16, "enc_depth": 1, "enc_heads": 2, "dec_dim": 16, "dec_depth": 2}
SIZES |= {"dec_heads": 2, "state_size": 6, "state_heads": 2, "memory_size": 3, "ray_depth": 1, "ray_heads": 2}


def tiny_cut3r(seed: int = 3) -> CUT3R:
    """Random weights, large enough that everything has a say."""
    torch.manual_seed(seed)
    network = CUT3R(CUT3RConfig(**SIZES)).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.normal_(1.0 if name.endswith("norm.weight") else 0.0, 0.2)
            if "head" in name:
                parameter *= 0.3
    return network


H, W = 6, 8
FOCAL = 9.0


class Omniscient(nn.Module):
    """Stands in for CUT3R where the truth is asked for.

    The first pixel of an image is the number of its frame. The state holds the number of the frame that it began
    with; points and poses are exact in the camera of that frame, as CUT3R's are meant to be.
    """

    checkpoint = Checkpoint("omniscient", "cut3r", (), "Apache-2.0", metric=True)

    def __init__(self, c2w: Tensor) -> None:
        super().__init__()
        self.cameras = nn.Parameter(c2w, requires_grad=False)  # [N, 4, 4] in any world
        self.seen: list[tuple[int, bool]] = []  # of every step: the frame, and whether it began a state
        self.flat: set[int] = set()  # frames of which all points lie on a line
        self.stretch = 1.0  # of world points, about the first camera

    def start(self, batch: int = 1) -> State:
        tokens, memory = torch.full((batch, 1, 1), -1.0), torch.zeros(batch, 1, 2)
        return State(tokens, torch.zeros(batch, 1, 2, dtype=torch.long), memory, tokens, memory)

    def step(self, state: State, view: View, update: bool = True, colours: bool = True) -> tuple[State, Prediction]:
        assert not colours
        number = round(float((view.image[0, 0, 0, 0] + 1) / 2 * 1000))
        self.seen.append((number, state.first))
        if state.first:
            state = replace(state, tokens=torch.full_like(state.tokens, float(number)), first=False)
        c2w = invert(self.cameras[int(state.tokens)]) @ self.cameras[number]
        local = self.local(number)
        conf = torch.full((1, H, W), 2.0)
        local_conf = conf.clone()
        local_conf[0, 0, 0] = 1.0  # not sure at all, so it may lie anywhere in the world
        world = apply(c2w, local) * self.stretch
        world[0, 0] = 1e3
        c2w, local, world = (t.float()[None] for t in (c2w, local, world))
        return state, Prediction(Pointmap(world, conf), "first", local=Pointmap(local, local_conf), c2w=c2w)

    def local(self, number: int) -> Tensor:
        """[H, W, 3] points of a frame in its own camera, with the right focal length."""
        v, u = torch.meshgrid(torch.arange(H).double(), torch.arange(W).double(), indexing="ij")
        depth = 2 + torch.sin(u + number) + torch.cos(2 * v)
        points = torch.stack(((u - (W - 1) / 2) / FOCAL * depth, (v - (H - 1) / 2) / FOCAL * depth, depth), dim=-1)
        return points * torch.tensor([0.0, 0, 1]) if number in self.flat else points


def winding_path(count: int) -> Tensor:
    """[N, 4, 4] cameras that turn and climb; the first is not at the origin."""
    generator = torch.Generator().manual_seed(8)
    quaternions = torch.randn(count, 4, generator=generator).double() + torch.tensor([3.0, 0, 0, 0])
    return pose_from_quaternion(torch.randn(count, 3, generator=generator).double() * 3, quaternions)


def numbered_frame(number: int, scale: float = 1.0) -> Frame:
    """A frame that `Omniscient` recognises; ``scale`` original pixels for one of its own."""
    image = torch.full((3, H, W), number / 1000)
    offset = (scale - 1) / 2
    size = (round(W * scale), round(H * scale))
    return Frame(
        image, number, number / 10, f"{number}.png", size, np.array([[scale, 0, offset], [0, scale, offset]])
    )


def noise_frame(index: int, size: tuple[int, int] = (32, 32)) -> Frame:
    """A frame of random colours; size (W, H)."""
    image = torch.rand(3, size[1], size[0], generator=torch.Generator().manual_seed(index))
    return Frame(image, index, index / 10, f"{index}.png", size, np.eye(2, 3))
