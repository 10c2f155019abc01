"""Settings of the run that made the packaged slam3r-mini."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from threer.data.synthetic import ClipStyle, Motion
from threer.errors import ThreerError
from threer.models.slam3r import SLAM3RConfig
from threer.training.objectives.settings import JointSettings


def _mini_network() -> SLAM3RConfig:
    return SLAM3RConfig(
        image_size=112,
        enc_dim=96,
        enc_depth=4,
        enc_heads=3,
        dec_dim=96,
        dec_depth=4,
        dec_heads=3,
        absolute_positions=True,
        ray_prior=0.52,
        pixel_bias=True,
        point_prior=True,
    )


def _mini_style() -> ClipStyle:
    return ClipStyle(fov=(36.0, 58.0), motion=Motion(step=(0.03, 0.2), gaze=(0.0, 0.15)), colour=0.0)


@dataclass(frozen=True)
class SLAM3RMini:
    """Both halves of SLAM3R from nothing, on generated rooms, sharing every rendered window.

    In each step Image-to-Points sees a window; Local-to-World then sees the same frames, split into scene and key
    frames, through the encoder's tokens without sending gradients back into the encoder.
    """

    network: SLAM3RConfig = field(default_factory=_mini_network)
    style: ClipStyle = field(default_factory=_mini_style)
    clip_frames: int = 12
    """Frames rendered of each room."""
    pool_clips: int = 600
    """Clips kept in memory; the oldest is replaced."""
    first_clips: int = 96
    """Clips rendered before the first step."""
    render_share: float = 0.12
    """Share of the time that goes into new clips."""
    views: tuple[int, int] = (4, 5)
    """Fewest and most views of a window, drawn per step."""
    keys: int = 2
    """Key frames among them for Local-to-World."""
    batch: int = 8
    """Windows in a step."""
    minutes: float = 64.0
    """Length of the run; the learning rate follows this clock."""
    muon_lr: float = 1e-3
    """Peak rate of the hidden matrices (Muon)."""
    adam_lr: float = 3e-4
    """Peak rate of everything else (AdamW)."""
    weight_decay: float = 0.02
    """On matrices only."""
    warmup: float = 0.03
    """Share of the run in which the rates rise."""
    last_lr: float = 0.01
    """Rates at the end, as a share of the peak."""
    clip_norm: float = 1.0
    pixel_step: int = 2
    """Losses look at one pixel in so many per axis, at a random offset: full maps cost a quarter of a step."""
    alpha: float = 1.0
    """Weight of the logarithm in the confidence loss. The best confidence is alpha / error: the published 0.2 would
    keep a network whose error is 0.15 below every threshold that the pipeline shares with the published ones."""
    retrieval_weight: float = 0.1
    own_points: float = 0.4
    """Share of samples whose key frame carries Image-to-Points' own prediction instead of noisy truth."""
    point_noise: float = 0.06
    """Smooth relative noise on the points fed to Local-to-World."""
    holes: float = 0.15
    """Share of patches of those points that are cleared."""
    colour: float = 1.0
    """Strength of the photometric changes of training windows."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.keys + 1 <= self.views[0] <= self.views[1] <= self.clip_frames:
            raise ThreerError(
                f"a window of {self.views[0]} to {self.views[1]} views must hold {self.keys} key frames and a "
                f"scene frame, and fit into clips of {self.clip_frames} frames"
            )
        self.objective()  # raises for what it does not allow
        if not 0 <= self.render_share < 1:
            raise ThreerError(f"render_share must be at least 0 and below 1, got {self.render_share}")

    def objective(self) -> JointSettings:
        """What each step descends on."""
        return JointSettings(
            alpha=self.alpha,
            keys=self.keys,
            retrieval_weight=self.retrieval_weight,
            own_points=self.own_points,
            point_noise=self.point_noise,
            holes=self.holes,
            pixel_step=self.pixel_step,
        )


def recipe_numbers(recipe: SLAM3RMini) -> dict[str, int | float | tuple[int, int]]:
    """Every setting that is a plain number or a pair: what a checkpoint keeps besides the network's sizes."""
    named = {f.name: getattr(recipe, f.name) for f in fields(recipe)}
    return {k: v for k, v in named.items() if isinstance(v, int | float | tuple)}
