"""Settings of everything a user can set. Plain dataclasses: no torch here, so ``threer --help`` is instant."""

from threer.config.alignment import AlignmentConfig
from threer.config.finished import LocalizeConfig, LoopConfig, MeshConfig, RefineConfig, RevisitConfig
from threer.config.inputs import InputSpec, SourceConfig
from threer.config.methods import ClassicalConfig, JointConfig, RecurrentConfig
from threer.config.reconstruct import ReconstructConfig
from threer.config.streaming import Policy, Preset, StreamingConfig

__all__ = [
    "AlignmentConfig",
    "ClassicalConfig",
    "InputSpec",
    "JointConfig",
    "LocalizeConfig",
    "LoopConfig",
    "MeshConfig",
    "Policy",
    "Preset",
    "ReconstructConfig",
    "RecurrentConfig",
    "RefineConfig",
    "RevisitConfig",
    "SourceConfig",
    "StreamingConfig",
]
