"""Where pictures were taken that are not in a run: retrieval, matches, and a camera with a stated status."""

from threer.pipelines.localization.localize import localize
from threer.pipelines.localization.result import LocalizedCamera

__all__ = ["LocalizedCamera", "localize"]
