"""Losses and gradients of the reference cases."""

from __future__ import annotations

import pytest

import golden_adapter
from golden_cases import case_names, load_case, relative_error

VALUE_TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-4


@pytest.mark.parametrize("name", case_names("loss_"))
def test_losses_and_gradients_are_the_published_ones(name: str) -> None:
    case = load_case(name)
    results = golden_adapter.run(case.config, case.inputs, case.weights)
    assert set(case.outputs) <= set(results)
    for key, want in case.outputs.items():
        tolerance = GRADIENT_TOLERANCE if ".grad." in key else VALUE_TOLERANCE
        assert relative_error(results[key], want) < tolerance, key
