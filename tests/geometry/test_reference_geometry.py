"""The published systems' closed-form geometry, value by value."""

import pytest

import golden_adapter
from golden_cases import load_case, relative_error

TOLERANCE = {"slam3r_normalize_views": 1e-5, "geom_dust3r_focal": 1e-4, "geom_dust3r_rigid": 1e-4}


@pytest.mark.parametrize("name", TOLERANCE)
def test_results_agree(name: str) -> None:
    case = load_case(name)
    results = golden_adapter.run(case.config, case.inputs, case.weights)
    assert results.keys() == case.outputs.keys()
    for key, want in case.outputs.items():
        assert relative_error(results[key], want) < TOLERANCE[name], key
