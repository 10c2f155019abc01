"""Training criteria: pointmap regression and its variants, confidence, cameras, colours, retrieval.

Points of a batch are [B, V, H, W, 3] (B samples, V views), confidences and masks [B, V, H, W]. A mean over valid
pixels runs over a view of the whole batch; a view without valid pixels counts 0. Everything is float32: callers
leave autocast first.
"""

from threer.training.losses.confidence import confidence_loss
from threer.training.losses.fusion import fusion_distances
from threer.training.losses.invariant import match_scale, match_shift
from threer.training.losses.pose import mean_pose_error, pose_errors
from threer.training.losses.regression import ViewLosses, point_distances, regression_loss, within
from threer.training.losses.retrieval import retrieval_loss
from threer.training.losses.scale import Normalization, normalize_points
from threer.training.losses.sequence import (
    SequencePoints,
    colour_errors,
    sequence_distances,
    sequence_scales,
    sky_included,
    typed_distances,
)

__all__ = [
    "Normalization",
    "SequencePoints",
    "ViewLosses",
    "colour_errors",
    "confidence_loss",
    "fusion_distances",
    "match_scale",
    "match_shift",
    "mean_pose_error",
    "normalize_points",
    "point_distances",
    "pose_errors",
    "regression_loss",
    "retrieval_loss",
    "sequence_distances",
    "sequence_scales",
    "sky_included",
    "typed_distances",
    "within",
]
