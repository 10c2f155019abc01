"""Send any reference case through the package's own code and return the results under the reference names.

`run(config, inputs, weights)` takes the contents of a case folder (golden data of the original systems) and
dispatches on the case's own description. The families live in `adapters/`, one file each.
"""

from __future__ import annotations

import importlib
from typing import Any

from torch import Tensor

# (field of config, value it starts with, adapter module)
FAMILIES = (
    ("fn", "pre", "preprocess"),
    ("fn", "loss_fn", "losses"),
    ("fn", "e2e", "streaming"),
    ("fn", "norm", "geometry"),
    ("fn", "focal", "geometry"),
    ("fn", "rigid", "geometry"),
    ("fn", "traj", "geometry"),
    ("fn", "pose", "geometry"),
    ("fn", "geom", "geometry"),
    ("mode", "PairViewer", "geometry"),
    ("fn", "ga", "alignment"),
    ("fn", "pairs", "alignment"),
    ("fn", "recip", "alignment"),
    ("fn", "misc", "alignment"),
    ("fn", "sel", "streaming"),
    ("model", "DUSt3R", "networks"),
    ("model", "SLAM3R Image2PointsModel", "networks"),
    ("model", "SLAM3R Local2WorldModel", "networks"),
    ("model", "CUT3R", "networks"),
    ("model", "Fast3R", "networks"),
)


def run(config: dict[str, Any], inputs: dict[str, Tensor], weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Results of one case, under the reference names. Raises LookupError for a case nothing here can run."""
    for field, value, module in FAMILIES:
        if str(config.get(field, "")).startswith(value):
            adapter = importlib.import_module(f"adapters.{module}")
            results: dict[str, Tensor] = adapter.run_case(config, inputs, weights)
            return results
    raise LookupError(f"no adapter for model={config.get('model')!r} fn={config.get('fn')!r}")
