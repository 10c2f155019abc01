"""The training loop: limited by the clock, saved every few minutes, continued where it stopped."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from threer.errors import ThreerError
from threer.models.slam3r import SLAM3R
from threer.nn.heads import LinearHead, camera_rays, from_points
from threer.training.mini import SLAM3RMini, recipe_numbers
from threer.training.objectives import Losses, Step
from threer.training.objectives.joint import JointObjective
from threer.training.pool import ClipPool
from threer.training.schedule import make_optimizers, rate
from threer.training.validation import Validation, mean_training_pointmap

STATE = "state.pt"
LOG = "log.csv"
LOSSES = ("loss", "local_error", "register_error", "retrieval")
COLUMNS = (
    "minutes", "step", "samples", "clips", *LOSSES,
    "val_error", "val_abs_rel", "val_inlier", "val_window_error", "val_register_error",
)  # fmt: skip


@dataclass
class Progress:
    """What has been done: seconds of training (validation and saving not counted), steps, windows seen."""

    seconds: float = 0.0
    rendering: float = 0.0
    step: int = 0
    samples: int = 0
    skipped: int = 0
    scores: dict[str, float] = field(default_factory=dict)


class Trainer:
    """Trains one network by one recipe into one folder (state.pt, log.csv).

    Continues when the folder holds a state. The clip pool is not saved: it is rendered anew from the next seeds.
    """

    def __init__(
        self,
        recipe: SLAM3RMini,
        folder: Path,
        device: str | torch.device = "cpu",
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.recipe, self.folder, self.device, self.report = recipe, folder, torch.device(device), report
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(recipe.seed)
        self.model = SLAM3R.from_config(recipe.network).to(self.device)
        self.objective = JointObjective(recipe.objective())
        self.optimizers = make_optimizers(self.model, recipe)
        self.progress = Progress()
        self.draws = torch.Generator().manual_seed(recipe.seed)
        self.noise = torch.Generator(self.device).manual_seed(recipe.seed)
        self.pool = ClipPool(
            recipe.pool_clips, recipe.clip_frames, recipe.network.image_size, recipe.style, device=self.device
        )
        self.mean_pointmap: Tensor | None = None
        if (folder / STATE).is_file():
            self._restore()

    def run(self, validate_every: float = 300.0, save_every: float = 240.0) -> None:
        """Train until the recipe's minutes are used up; intervals are in seconds."""
        recipe, progress = self.recipe, self.progress
        started = time.monotonic()
        self.pool.grow(recipe.first_clips)
        if self.mean_pointmap is None:
            self.mean_pointmap = mean_training_pointmap(self.pool)
            start_from_mean(self.model, self.mean_pointmap)
        validation = Validation(recipe)
        self.report(f"first clips and validation set after {time.monotonic() - started:.0f} s")
        for name, scores in (
            ("mean pointmap", validation.mean_pointmap(self.mean_pointmap)),
            ("constant depth", validation.constant_depth()),
        ):
            self.report(f"{name}: {readable(scores.row())}")
        self.report(f"keys left unmoved: register_error {validation.unmoved_keys():.4f}")

        window: list[Mapping[str, Tensor]] = []
        next_validation, next_save = progress.seconds + min(60.0, validate_every), progress.seconds + save_every
        limit = recipe.minutes * 60
        clock = time.monotonic()
        while progress.seconds < limit:
            self._render_if_due()
            window.append(self._step(progress.seconds / limit))
            now = time.monotonic()
            progress.seconds += now - clock
            clock = now
            last = progress.seconds >= limit
            if progress.seconds >= next_validation or last:
                progress.scores = validation.network(self.model, recipe.batch).row()
                next_validation = progress.seconds + validate_every
                self._log(window)
                window = []
            if progress.seconds >= next_save or last:
                self.save()
                next_save = progress.seconds + save_every
            clock = time.monotonic()

    def _render_if_due(self) -> None:
        if self.progress.rendering <= self.recipe.render_share * self.progress.seconds:
            before = time.monotonic()
            self.pool.grow(2)
            self.progress.rendering += time.monotonic() - before

    def _step(self, done: float) -> Mapping[str, Tensor]:
        recipe = self.recipe
        fewest, most = recipe.views
        views = int(torch.randint(fewest, most + 1, (), generator=self.draws))
        windows = self.pool.draw(recipe.batch, views, self.draws, recipe.colour)
        share = rate(done, recipe)
        for optimizer, peak in zip(self.optimizers, (recipe.muon_lr, recipe.adam_lr), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * share
        self.model.train()
        self.model.zero_grad(set_to_none=True)
        losses: Losses | None = None
        for losses in self.objective(self.model, windows, Step(self.noise, done)):
            torch.autograd.backward(losses.total)
        assert losses is not None
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_norm)
        if torch.isfinite(norm):
            for optimizer in self.optimizers:
                optimizer.step()
        else:
            self.progress.skipped += 1
            if self.progress.skipped > 20 and self.progress.skipped > 0.01 * self.progress.step:
                raise ThreerError(f"training diverged: {self.progress.skipped} steps without finite gradients")
        self.progress.step += 1
        self.progress.samples += recipe.batch
        return losses.parts

    def _log(self, window: list[Mapping[str, Tensor]]) -> None:
        progress = self.progress
        row: dict[str, Any] = {
            "minutes": progress.seconds / 60,
            "step": progress.step,
            "samples": progress.samples,
            "clips": self.pool.next_seed,
        }
        row |= {name: _mean([w[name] for w in window]) for name in LOSSES}
        row |= {f"val_{k}": v for k, v in progress.scores.items()}
        path = self.folder / LOG
        fresh = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            if fresh:
                writer.writeheader()
            writer.writerow({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()})
        self.report(readable(row))

    def save(self) -> None:
        """Write the state so that a kill at any moment leaves the old one or the new one."""
        state = {
            "recipe": recipe_numbers(self.recipe),
            "network": self.recipe.network.to_dict(),
            "model": self.model.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "progress": vars(self.progress),
            "next_seed": self.pool.next_seed,
            "draws": self.draws.get_state(),
            "noise": self.noise.get_state(),
            "mean_pointmap": self.mean_pointmap,
        }
        temporary = self.folder / (STATE + ".new")
        torch.save(state, temporary)
        os.replace(temporary, self.folder / STATE)

    def _restore(self) -> None:
        state = torch.load(self.folder / STATE, map_location="cpu", weights_only=True)
        if state["network"] != self.recipe.network.to_dict():
            raise ThreerError(f"{self.folder / STATE} belongs to a network of other sizes; choose another folder")
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.progress = Progress(**state["progress"])
        self.pool.next_seed = state["next_seed"]
        self.draws.set_state(state["draws"])
        self.noise.set_state(state["noise"])
        self.mean_pointmap = state["mean_pointmap"]
        self.report(f"continuing after {self.progress.seconds / 60:.1f} minutes, {self.progress.samples} samples")


def start_from_mean(model: SLAM3R, mean: Tensor) -> None:
    """Let an untrained network answer with its priors: the mean pointmap [H, W, 3], and given points unmoved."""
    with torch.no_grad():
        for half in (model.i2p, model.l2w):
            for head in (half.first_head, half.second_head):
                if not isinstance(head, LinearHead) or not isinstance(head.linear, torch.nn.Linear):
                    raise ThreerError("this recipe trains linear heads only; set head='linear'")
                head.linear.weight.zero_()
                if head.pixel_bias is not None:
                    vectors = from_points(mean.to(head.pixel_bias), half.config.point_mode).permute(2, 0, 1)
                    if head.ray_prior is not None:
                        vectors = vectors - camera_rays(
                            (mean.shape[0], mean.shape[1]), head.ray_prior, vectors.device
                        )
                    head.pixel_bias[:3] = vectors


def _mean(values: list[Tensor]) -> float:
    return float(torch.stack(values).mean()) if values else float("nan")


def readable(row: dict[str, Any]) -> str:
    return "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
