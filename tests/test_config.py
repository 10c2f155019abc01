"""Settings that make no sense are refused by name, whichever class holds them."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from threer import config
from threer.errors import ThreerError

CONFIGS = [getattr(config, name) for name in config.__all__ if name.endswith("Config")]


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        (config.StreamingConfig, {"policy": "lifo"}, "policy must be reservoir or fifo, got 'lifo'"),
        (config.StreamingConfig, {"deadline": -1}, "deadline must be at least 0, got -1"),
        (config.JointConfig, {"align_quantile": 1.0}, "align_quantile must be at least 0 and below 1, got 1.0"),
        (config.ReconstructConfig, {"method": "slam"}, "method must be one of auto, slam3r, .*, got 'slam'"),
        (config.ReconstructConfig, {"keep": math.nan}, "keep must be above 0 and at most 1, got nan"),
        (config.ReconstructConfig, {"fps": math.inf}, "fps must be a finite number, got inf"),
        (config.MeshConfig, {"voxel": 0.0}, r"voxel must be positive, got 0\.0"),
        (config.MeshConfig, {"faces": 3}, "faces must be at least 4, got 3"),
        (config.LocalizeConfig, {"timeout": 0.0}, "timeout must be positive"),  # of both of its bases
        (config.LocalizeConfig, {"pictures": "mine"}, "pictures must be source or run, got 'mine'"),
        (config.RefineConfig, {"seed": -1}, "seed must be at least 0, got -1"),
        (config.LoopConfig, {"pictures": "mine"}, "pictures must be source or run, got 'mine'"),
    ],
)
def test_wrong_settings_are_named(kind: Any, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ThreerError, match=f"^{message}"):
        kind(**wrong)


@pytest.mark.parametrize("kind", CONFIGS)
def test_defaults_are_fine_and_fields_cannot_be_set(kind: Any) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        kind().seed = 1


def test_frames_of_a_reconstruction_are_its_own() -> None:
    own = config.ReconstructConfig(start=2.0, record=Path("here"))
    frames = own.frames()
    assert type(frames) is config.SourceConfig
    assert (frames.fps, frames.start, frames.record) == (own.fps, 2.0, Path("here"))


def test_settings_need_neither_torch_nor_numpy() -> None:
    code = "import sys, threer.config; sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
