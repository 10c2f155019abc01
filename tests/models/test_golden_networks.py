"""Every reference case of DUSt3R and SLAM3R's networks, tensor by tensor."""

from __future__ import annotations

import pytest
import torch

from golden_adapter import run
from golden_cases import case_names, load_case, relative_error

CASES = case_names("dust3r_", "slam3r_i2p_", "slam3r_l2w_")


def tolerance(name: str, head: str) -> float:
    """Largest difference over largest reference value that a tensor may show."""
    if name.endswith((".conf", ".pts3d", ".pts3d_in_other_view")):
        return 3e-5 if head == "dpt" else 2e-5
    return 1e-5


@pytest.mark.parametrize("name", CASES)
def test_reference_case(name: str) -> None:
    case = load_case(name)
    results = run(case.config, case.inputs, case.weights)
    absent = sorted(set(case.outputs) - set(results))
    assert not absent, f"no result for {absent}"
    failed = []
    for key, want in case.outputs.items():
        got = results[key]
        assert got.shape == want.shape, f"{key}: shape {list(got.shape)}, expected {list(want.shape)}"
        if want.dtype.is_floating_point:
            error = relative_error(got, want)
            limit = tolerance(key, case.config["constructor"]["head_type"])
            if error > limit:
                failed.append(f"{key}: {error:.1e} > {limit:.0e}")
        elif not torch.equal(got, want):
            failed.append(f"{key}: not equal")
    assert not failed, "; ".join(failed)
