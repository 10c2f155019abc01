"""The networks, and where their weights come from."""

from threer.models.checkpoints import save_checkpoint
from threer.models.cut3r import CUT3R, CUT3RConfig
from threer.models.dust3r import DUSt3R, DUSt3RConfig
from threer.models.fast3r import Fast3R, Fast3RConfig
from threer.models.official import from_official
from threer.models.registry import load_model
from threer.models.slam3r import SLAM3R, SLAM3RConfig

__all__ = [
    "CUT3R",
    "SLAM3R",
    "CUT3RConfig",
    "DUSt3R",
    "DUSt3RConfig",
    "Fast3R",
    "Fast3RConfig",
    "SLAM3RConfig",
    "from_official",
    "load_model",
    "save_checkpoint",
]
