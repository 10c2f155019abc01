"""Does rendering keep up with training? Clips rendered against clips that a recipe uses up, in one run.

    python benchmarks/feed.py slam3r-mini                 # processor seconds of one thread
    python benchmarks/feed.py dust3r-mini --device cuda   # seconds by the clock
    python benchmarks/feed.py slam3r-mini --workers 2     # and what two processes make ahead, by the clock

Rendering is timed in its two parts: what the CPU draws (room, path), and what the device casts and develops.
Training is timed by whole optimiser steps of the recipe on random pictures. A recipe uses up one clip for every
``synthetic.reuse`` samples.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from threer.data.synthetic.clips import draw_scenes, render_scenes
from threer.training.ahead import Ahead
from threer.training.batch import Batch
from threer.training.networks import build
from threer.training.objectives import Step, make_objective
from threer.training.recipes import load_recipe
from threer.training.recipes.recipe import Recipe
from threer.training.rounds import Rounds, style_of
from threer.training.schedule import make_optimizers
from threer.training.sources import Feed

LANES = 8  # clips of a round


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clips", type=int, default=4, help="to render")
    parser.add_argument("--batch", type=int, default=8, help="samples of a step")
    parser.add_argument("--size", type=int, help="side of the pictures; the recipe's when not given")
    parser.add_argument("--style", choices=("plain", "hand-held"), help="the recipe's when not given")
    parser.add_argument("--workers", type=int, help="processes that work ahead")
    parser.add_argument("--render-only", action="store_true", help="do not train")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    recipe = load_recipe(given.recipe)
    if given.style:
        recipe = replace(recipe, synthetic=replace(recipe.synthetic, style=given.style))
    size = (given.size, given.size) if given.size else recipe.resolution.sizes[0]
    drawn, rendered = render(recipe, size, given.clips, given.device)
    frames = recipe.synthetic.frames
    clips = given.clips / (drawn + rendered)
    print(f"{recipe.name}, {recipe.synthetic.style}, {size[0]}×{size[1]}, clips of {frames} frames, {given.device}")
    print(f"room and path   {1000 * drawn / given.clips:8.1f} ms a clip")
    print(f"pictures        {1000 * rendered / given.clips / frames:8.1f} ms a frame")
    print(f"rendered        {clips:8.2f} clips/s, {clips * frames:.1f} frames/s")
    if given.workers:
        ahead = made_ahead(recipe, size, given.workers, torch.device(given.device))
        print(f"made ahead      {ahead:8.2f} clips/s by {given.workers} processes")
    if given.render_only:
        return
    samples = given.batch / train(recipe, given.batch, given.device)
    used = samples / recipe.synthetic.reuse
    print(f"trained         {samples:8.1f} samples/s, which use up {used:.3f} clips/s")
    print(f"rendering feeds {clips / used:8.1f} times what is used up")


def render(recipe: Recipe, size: tuple[int, int], clips: int, device: str) -> tuple[float, float]:
    """Seconds for ``clips`` clips: rooms and paths; pictures."""
    style, frames = style_of(recipe.synthetic), recipe.synthetic.frames
    render_scenes(draw_scenes([0], 1, size, style), size, style, device)  # textures, kernels
    before = seconds(device)
    scenes = draw_scenes(range(1, clips + 1), frames, size, style)
    between = seconds(device)
    render_scenes(scenes, size, style, device)
    return between - before, seconds(device) - between


def made_ahead(recipe: Recipe, size: tuple[int, int], workers: int, device: torch.device) -> float:
    """Clips a second that come from processes that work ahead."""
    makes = Ahead(Rounds(recipe.synthetic, size, 0, LANES, tuple(range(LANES)), None), device, workers)
    try:
        for number in range(makes.depth):  # begin, textures, kernels
            makes.take(number)
        before = time.perf_counter()
        for number in range(makes.depth, 2 * makes.depth):
            makes.take(number)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return makes.depth * LANES / (time.perf_counter() - before)
    finally:
        makes.close()


def train(recipe: Recipe, batch: int, device: str) -> float:
    """Seconds of a step of ``batch`` samples: forward, backward, optimiser."""
    torch.manual_seed(0)
    model = build(recipe).to(device)
    objective = make_objective(recipe.objective)
    optimizers = make_optimizers(model, recipe)
    request = Feed(recipe, {}, 1, 0).request(10**9)
    width, height = request.size
    shape = (batch, request.views)
    near = torch.eye(4).repeat(*shape, 1, 1)
    near[..., :3, 3] = 0.1 * torch.rand(*shape, 3)
    K = torch.tensor([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1.0]]).repeat(*shape, 1, 1)
    pictures = torch.rand(*shape, 3, height, width) * 2 - 1
    depth = 1 + torch.rand(*shape, height, width)
    data = Batch.of(pictures, depth, near, K, roles=request.roles).to(device)
    generator = torch.Generator(device).manual_seed(0)

    def step() -> None:
        for losses in objective(model, data, Step(generator, 0.5)):
            losses.total.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    return timed(step, device)


def timed(call: Callable[[], None], device: str, times: int = 2) -> float:
    call()
    before = seconds(device)
    for _ in range(times):
        call()
    return (seconds(device) - before) / times


def seconds(device: str) -> float:
    """Processor time, or the clock's once the GPU has done what it was asked."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


if __name__ == "__main__":
    main()
