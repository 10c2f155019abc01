"""One objective per system: from a network and a batch with truth to losses with logged parts."""

from __future__ import annotations

from typing import Any

from threer.training.objectives.base import Losses, Objective, Step, finite_everywhere
from threer.training.objectives.fusion import FusionObjective
from threer.training.objectives.joint import JointObjective
from threer.training.objectives.pairs import PairObjective
from threer.training.objectives.registration import RegistrationObjective
from threer.training.objectives.sequence import SequenceObjective
from threer.training.objectives.settings import (
    FusionSettings,
    JointSettings,
    ObjectiveSettings,
    PairSettings,
    RecurrentSettings,
    RegistrationSettings,
    RetrievalSettings,
    WindowSettings,
)
from threer.training.objectives.windows import RetrievalObjective, WindowObjective

__all__ = ["Losses", "Objective", "Step", "finite_everywhere", "make_objective"]

_KINDS: dict[type[ObjectiveSettings], Any] = {
    PairSettings: PairObjective,
    WindowSettings: WindowObjective,
    RetrievalSettings: RetrievalObjective,
    RegistrationSettings: RegistrationObjective,
    JointSettings: JointObjective,
    RecurrentSettings: SequenceObjective,
    FusionSettings: FusionObjective,
}


def make_objective(settings: ObjectiveSettings) -> Objective[Any]:
    """The objective that ``settings``, as in `Recipe.objective`, describe."""
    objective: Objective[Any] = _KINDS[type(settings)](settings)
    return objective
