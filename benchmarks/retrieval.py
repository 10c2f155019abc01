"""Does one query per round choose the same scene frames as every second frame of the round?

    python benchmarks/retrieval.py SOURCE [--weights slam3r-mini] [--stride 10]

Streams SOURCE and asks both ways in every round. Prints how many of the chosen scene frames agree, and how often
the best one does. One query costs half as much or less, and retrieval is the largest cost of a full buffer.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np

from threer.config import SourceConfig, StreamingConfig
from threer.errors import ThreerError
from threer.io.sources import open_source, to_frame
from threer.models import SLAM3R, load_model
from threer.pipelines.streaming import StreamingSession
from threer.pipelines.streaming.networks import Networks
from threer.pipelines.streaming.state import Keyframe


class BothWays(Networks):
    """Retrieves with every second frame of a round, and notes what its middle frame alone would have chosen."""

    overlaps: list[float]
    same_best: list[bool]

    def retrieve(self, queries: Sequence[Keyframe], candidates: Sequence[Keyframe]) -> list[Keyframe]:
        chosen = super().retrieve(queries, candidates)
        if len(candidates) > self._config.scene_frames and len(queries) > 1:
            alone = super().retrieve([queries[len(queries) // 2]], candidates)
            both = {k.index for k in chosen} & {k.index for k in alone}
            self.overlaps.append(len(both) / len(chosen))
            self.same_best.append(alone[0] is chosen[0])
        return chosen


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("--weights", default="slam3r-mini")
    parser.add_argument("--stride", type=int, default=10)
    parser.add_argument("--scene-frames", type=int, default=5)
    args = parser.parse_args()
    model = load_model(args.weights)
    assert isinstance(model, SLAM3R)
    config = StreamingConfig(
        stride=args.stride, scene_frames=args.scene_frames, retrieval_queries="every_second", radius=2
    )
    session = StreamingSession(model, config)
    networks = BothWays(model, config)
    networks.overlaps, networks.same_best = [], []
    session._networks = networks
    for raw in open_source(args.source, SourceConfig()):
        session.push(to_frame(raw, model.input))
    session.finish()
    if not networks.overlaps:
        print("no round had more candidates than scene frames and more than one query: take a longer clip")
        return 1
    print(
        f"{len(networks.overlaps)} rounds: {np.mean(networks.overlaps):.0%} of the chosen scene frames agree, "
        f"the best one in {np.mean(networks.same_best):.0%}"
    )
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ThreerError as error:
        sys.exit(f"retrieval: {error}")
