"""The running mean of the weights is what a run is judged by and what it leaves behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from threer.models.files import read_weights
from threer.training.options import Options
from threer.training.trainer import Trainer
from tiny_training import PAIRS, tiny_recipe


def test_validation_and_export_have_the_mean_and_training_goes_on_from_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(tiny_recipe(PAIRS | {"lr": "1e-2"}), tmp_path, Options(steps=3))
    judge, judged = trainer.validation.network, []

    def weights(network: Any) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in network.named_parameters()}

    def judging(evaluate: Any) -> Any:
        judged.append(evaluate(weights))
        return judge(evaluate)

    monkeypatch.setattr(trainer.validation, "network", judging)
    trainer.run()
    last = weights(trainer.network)
    assert trainer.learner.ema is not None
    mean = dict(zip(last, trainer.learner.ema.values, strict=True))
    exported = read_weights(tmp_path / "weights").tensors
    state = torch.load(tmp_path / "state.pt", weights_only=True)["model"]
    changed = [name for name in last if (mean[name] - last[name]).abs().max() > 1e-5]
    assert len(changed) > 0.5 * len(last)
    for name in last:
        assert torch.equal(judged[-1][name], mean[name])
        torch.testing.assert_close(exported[name].float(), mean[name], atol=1e-6, rtol=1e-3)  # half precision
        assert torch.equal(state[name], last[name])
    assert any(not torch.allclose(exported[name].float(), last[name], atol=1e-6, rtol=1e-3) for name in changed)
