"""The published systems' closed-form geometry, value by value."""

import pytest

import golden_adapter
from golden_cases import load_case, relative_error

TOLERANCE = {
    "slam3r_normalize_views": 1e-5,
    "geom_dust3r_focal": 1e-4,
    "geom_dust3r_rigid": 1e-4,
    "geom_cut3r_pose": 1e-6,
    "geom_cut3r_misc": 1e-5,
    "geom_dust3r_misc": 1e-5,
    "geom_dust3r_reciprocal_nn": 0,
}
# What this package has no use for.
ABSENT = {"conf_sigmoid", "postprocess.exp.inverse", "postprocess.square.inverse", "quat_mul", "relative.q"}


@pytest.mark.parametrize("name", TOLERANCE)
def test_results_agree(name: str) -> None:
    case = load_case(name)
    results = golden_adapter.run(case.config, case.inputs, case.weights)
    assert results.keys() == case.outputs.keys() - ABSENT
    for key, got in results.items():
        assert relative_error(got, case.outputs[key]) <= TOLERANCE[name], key
