"""Everything that one stage of training needs to know, as one validated, frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, Self

from threer.errors import ThreerError
from threer.models.backbone import NetworkConfig
from threer.training.objectives.settings import (
    OBJECTIVES,
    JointSettings,
    ObjectiveSettings,
    RegistrationSettings,
)

Family = Literal["dust3r", "slam3r", "slam3r-i2p", "slam3r-l2w", "cut3r", "fast3r"]


@dataclass(frozen=True)
class Initialisation:
    """What the network starts from."""

    weights: str
    """A recipe (its result), a checkpoint by name, or a path."""
    family: Literal["croco", "dust3r", "slam3r", "slam3r-i2p", "slam3r-l2w", "cut3r", "fast3r"]
    """Whose tensors those are: `threer.training.initialise` has the rules from one family to another."""
    decoder: bool = True
    """For CUT3R from DUSt3R: take the first decoder along, too, for the image and for the state."""
    heads: bool = False
    """For CUT3R from DUSt3R, both with linear heads: own and common points begin as what the first head says."""
    new_head: bool = False
    """Leave the heads random although the family is the same (linear to DPT)."""


@dataclass(frozen=True)
class Source:
    """One data set in the mixture. What is None is the data set's own default."""

    weight: float = 1.0
    """Its share of the samples of an epoch, relative to the others'."""
    interval: int | None = None
    """Windows: frames from one view to the next. Clips: the most frames between two views."""
    ordered: float | None = None
    """Clips: probability that the views keep the order of time."""
    steady: float | None = None
    """Clips: probability that an ordered clip has one constant gap."""
    modality: tuple[float, float, float] | None = None
    """Clips: probabilities of image alone, rays alone, both (metric sets, views after the first)."""
    crop_jitter: int | None = None
    """Up to so many pixels more, less one, are kept before the centre crop: a random zoom."""
    background: float | None = None
    """Probability of masking the background, where the set has masks for it."""
    far: float | None = None
    """Depths beyond this, in the set's unit, do not count."""
    overlap: tuple[float, float] | None = None
    """Least and most that views of a pair or neighbours of a set share, 0..1, where the set lists it."""
    parallax: tuple[float, float] | None = None
    """Least and most angle in degrees between their rays, where the set lists it."""

    def __post_init__(self) -> None:
        if self.weight <= 0:
            raise ThreerError(f"weight must be above 0, got {self.weight:g}")
        for name in ("ordered", "steady", "background"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ThreerError(f"{name} must lie in 0..1, got {value:g}")
        for name, most in (("overlap", 1), ("parallax", 180)):
            bounds = getattr(self, name)
            if bounds is not None and not 0 <= bounds[0] <= bounds[1] <= most:
                raise ThreerError(f"{name} must be two numbers that rise within 0..{most}, got {list(bounds)}")
        if self.modality is not None and (min(self.modality) < 0 or abs(sum(self.modality) - 1) > 1e-6):
            raise ThreerError(f"modality must be three probabilities that add up to 1, got {self.modality}")


@dataclass(frozen=True)
class Mixture:
    """Which data sets, how much of each, and how colours are changed."""

    sources: dict[str, Source]
    """By the name of the data set."""
    samples_per_epoch: int
    jitter: tuple[float, float, float, float] = (0.5, 0.5, 0.5, 0.1)
    """Colour jitter: brightness, contrast, saturation, hue."""
    jitter_together: bool = False
    """One draw of the jitter for all views of a sample instead of one for each."""

    def __post_init__(self) -> None:
        if not self.sources:
            raise ThreerError("a mixture needs at least one source")
        if self.samples_per_epoch < 1:
            raise ThreerError(f"samples_per_epoch must be at least 1, got {self.samples_per_epoch}")

    def shares(self) -> dict[str, float]:
        """Share of each source among the samples; they add up to 1."""
        total = sum(s.weight for s in self.sources.values())
        return {name: s.weight / total for name, s in self.sources.items()}


@dataclass(frozen=True)
class Views:
    """How many views a sample has, how they are chosen, and what they are for."""

    count: tuple[int, int]
    """Fewest and most, drawn for each batch."""
    sampling: Literal["pair", "window", "clip", "set"]
    """Pairs that overlap; consecutive frames at a fixed stride (SLAM3R); random gaps, ordered or not (CUT3R);
    random members of a neighbourhood, unsorted (Fast3R)."""
    reference: Literal["first", "middle", "random"] = "first"
    scene: int = 0
    """Local-to-World: the first so many views, after the world's, are scene frames; the others are keys."""
    drop_world: bool = False
    """Local-to-World: fetch one view more, in front, which only names the world frame."""
    ramp: int = 0
    """Samples over which the most views rise from the fewest."""

    def __post_init__(self) -> None:
        low, high = self.count
        if self.ramp < 0:
            raise ThreerError(f"ramp must not be below 0, got {self.ramp}")
        if not 1 <= low <= high:
            raise ThreerError(f"count must be two numbers that rise from 1 or more, got {list(self.count)}")
        if self.sampling == "pair" and self.count != (2, 2):
            raise ThreerError(f"pairs have count = [2, 2], got {list(self.count)}")
        if not 0 <= self.scene < low:
            raise ThreerError(f"scene {self.scene} leaves no key frame of {low} views")


@dataclass(frozen=True)
class Resolution:
    """Sizes of the images, one drawn for each batch."""

    sizes: tuple[tuple[int, int], ...]
    """(W, H)."""
    weights: tuple[float, ...] | None = None
    """How often each, relative to the others; None for all alike."""
    portrait: bool = False
    """Store portrait pictures transposed in landscape batches, `Batch.true_shape` telling which."""

    def __post_init__(self) -> None:
        if not self.sizes or any(side < 16 or side % 16 for size in self.sizes for side in size):
            raise ThreerError(f"sizes must be multiples of 16, got {[list(s) for s in self.sizes]}")
        if self.weights is not None and (len(self.weights) != len(self.sizes) or min(self.weights) <= 0):
            raise ThreerError(f"weights must be {len(self.sizes)} numbers above 0, got {list(self.weights)}")


@dataclass(frozen=True)
class Optimizer:
    """AdamW, or Muon for the matrices inside the blocks and AdamW for the rest."""

    name: Literal["adamw", "muon"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.05
    decay_vectors: bool = False
    """Decay norms, biases and single tokens, too."""
    muon_lr: float = 1e-3
    """Peak rate of Muon's matrices; everything else has the schedule's."""
    clip: float | None = None
    """Largest norm of the gradient; None does not clip."""
    ema: float | None = None
    """Decay of the running mean of the weights that is validated and exported; None keeps none."""


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up from 0, then half a cosine; by epochs, or by the clock."""

    lr: float
    min_lr: float
    epochs: float | None = None
    minutes: float | None = None
    warmup: float = 0.0
    """In the unit of the length: epochs or minutes."""

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.minutes is None):
            raise ThreerError("a schedule has either epochs or minutes")
        if not 0 <= self.warmup < self.length:
            raise ThreerError(f"a warm-up of {self.warmup:g} does not fit into {self.length:g}")
        if not 0 <= self.min_lr <= self.lr:
            raise ThreerError(f"min_lr {self.min_lr:g} must not exceed lr {self.lr:g}")

    @property
    def length(self) -> float:
        """Epochs or minutes, whichever counts."""
        length = self.epochs if self.epochs is not None else self.minutes
        assert length is not None
        return length

    @property
    def warmup_share(self) -> float:
        """Share of the run in which the rate rises."""
        return self.warmup / self.length

    def within(self, minutes: float) -> Self:
        """The same course, squeezed into ``minutes``."""
        return replace(self, epochs=None, minutes=minutes, warmup=self.warmup_share * minutes)


@dataclass(frozen=True)
class BatchSize:
    """Samples of one optimiser step: per device × devices × accumulated."""

    per_device: int
    devices: int = 1
    """As published; a run takes the devices it is given."""
    accumulate: int = 1

    def __post_init__(self) -> None:
        for name in ("per_device", "devices", "accumulate"):
            if getattr(self, name) < 1:
                raise ThreerError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def effective(self) -> int:
        return self.per_device * self.devices * self.accumulate


@dataclass(frozen=True)
class Validating:
    """How the model is checked while it trains."""

    samples: int = 1000
    """Of each source; of a set on disk no more than it has starts."""
    seed: int = 666
    """Of the samples on disk."""
    every: float = 1.0
    """Epochs or minutes between two checks, in the unit of the schedule."""
    views: int | None = None
    """Views of a sample; None for the fewest that are trained on."""

    def __post_init__(self) -> None:
        if self.samples < 1 or self.every <= 0:
            raise ThreerError(f"samples and every must be above 0, got {self.samples} and {self.every:g}")
        if self.seed < 0 or (self.views is not None and self.views < 1):
            raise ThreerError(f"seed must not be below 0 and views not below 1, got {self.seed} and {self.views}")


@dataclass(frozen=True)
class Synthetic:
    """Generated rooms, where the data set `synthetic` is among the sources. See `threer.data.synthetic`."""

    frames: int = 12
    """Frames rendered of each room."""
    pool: int | None = None
    """Clips kept in memory, the oldest replaced; None for half of the memory that is free."""
    first: int | None = None
    """Clips rendered before the first step; None for as many as `render_share` of the run's time allows."""
    render_share: float = 0.05
    """Share of the run's time for the first clips, where their number is not given."""
    reuse: float = 64.0
    """Samples drawn for every further clip that is rendered."""
    style: Literal["plain", "hand-held"] = "plain"
    """Smooth paths and a perfect camera in plain rooms, or a phone's video of lived-in ones."""
    fov: tuple[float, float] | None = None
    """Horizontal field of view in degrees, drawn once per clip; of the whole picture that a hand-held clip is the
    centre of. None for 36..58 (plain) and 45..85 (hand-held)."""
    step: tuple[float, float] = (0.03, 0.2)
    """Metres from a frame to the next. Plain only, as ``gaze``."""
    gaze: tuple[float, float] = (0.0, 0.15)
    rate: tuple[float, float] = (3.0, 10.0)
    """Frames a second of hand-held clips; fewer where clips are short, or their views see much the same."""
    clutter: tuple[float, float] = (0.25, 1.0)
    """How full hand-held rooms are, 0..1, drawn for every round of clips."""
    ramp: int = 0
    """Samples over which the upper limit of ``clutter`` rises from the lower one."""
    textures: str | None = None
    """Folder of photographs of tileable surfaces, beside the drawn ones. Hand-held only."""
    colour: float = 1.0
    """Strength of the photometric changes, drawn afresh for every sample (`data.jitter` is for photographs)."""

    def __post_init__(self) -> None:
        if self.frames < 2 or self.reuse <= 0 or not 0 < self.render_share < 1:
            raise ThreerError(
                "clips need at least 2 frames, reuse above 0 and render_share between 0 and 1, "
                f"got {self.frames}, {self.reuse:g} and {self.render_share:g}"
            )
        low, high = self.clutter
        if not 0 <= low <= high <= 1:
            raise ThreerError(f"clutter must be two numbers that rise within 0..1, got {list(self.clutter)}")
        if self.ramp < 0:
            raise ThreerError(f"ramp must not be below 0, got {self.ramp}")
        slow, fast = self.rate
        if not 0 < slow <= fast:
            raise ThreerError(f"rate must be two numbers that rise from above 0, got {list(self.rate)}")
        if self.textures is not None and self.style != "hand-held":
            raise ThreerError(f"textures are for style 'hand-held', got style {self.style!r}")
        for name in ("pool", "first"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise ThreerError(f"{name} must be at least 1, got {count}")


@dataclass(frozen=True)
class Recipe:
    """One stage of training; see `threer.training.recipes.load_recipe`."""

    name: str
    description: str
    family: Family
    network: NetworkConfig
    objective: ObjectiveSettings
    data: Mixture
    views: Views
    resolution: Resolution
    schedule: Schedule
    batch: BatchSize
    init: Initialisation | None = None
    optimizer: Optimizer = field(default_factory=Optimizer)
    validation: Validating = field(default_factory=Validating)
    freeze: tuple[str, ...] = ()
    """Patterns of parameters (our names, `*` for anything) that are not trained."""
    train: tuple[str, ...] = ("*",)
    """Patterns of parameters that are trained, unless frozen."""
    precision: Literal["32", "bf16"] = "32"
    seed: int = 0
    synthetic: Synthetic = field(default_factory=Synthetic)

    def __post_init__(self) -> None:
        if isinstance(self.objective, RegistrationSettings) and not self.views.scene:
            raise ThreerError(f"recipe {self.name}: Local-to-World needs views.scene above 0")
        low = self.views.count[0]
        if isinstance(self.objective, JointSettings) and self.objective.keys + 1 > low:
            raise ThreerError(
                f"recipe {self.name}: {low} views cannot hold {self.objective.keys} key frames and a scene frame"
            )
        if self.views.sampling == "pair" and self.validated_views != 2:
            raise ThreerError(f"recipe {self.name}: pairs have validation.views 2, got {self.validated_views}")
        if self.family in ("slam3r", "slam3r-l2w") and self.validated_views < 2:
            raise ThreerError(f"recipe {self.name}: registration needs validation.views of 2 or more")
        most = self.views.count[1] + self.views.drop_world
        if "synthetic" in self.data.sources and most > self.synthetic.frames:
            raise ThreerError(
                f"recipe {self.name}: {most} views do not fit into clips of {self.synthetic.frames} frames; "
                "raise synthetic.frames"
            )

    @property
    def validated_views(self) -> int:
        """Views of a sample that is validated on."""
        return self.validation.views or self.views.count[0]

    @property
    def objective_name(self) -> str:
        """What the recipe calls its objective."""
        return next(name for name, kind in OBJECTIVES.items() if type(self.objective) is kind)
