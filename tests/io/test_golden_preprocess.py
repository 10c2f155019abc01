"""Image preparation gives the bytes of the original loaders."""

from __future__ import annotations

import pytest
import torch

import golden_adapter
import golden_cases


@pytest.mark.parametrize("name", golden_cases.case_names("preproc_"))
def test_preparation_equals_the_reference(name: str) -> None:
    case = golden_cases.load_case(name)
    results = golden_adapter.run(case.config, case.inputs, case.weights)
    absent = sorted(set(case.outputs) - set(results))
    assert not absent, f"no result for {absent}"
    for key, want in case.outputs.items():
        if key.endswith("mean_std"):
            torch.testing.assert_close(results[key], want, rtol=0, atol=1e-6)
        else:
            assert results[key].dtype == want.dtype, key
            assert torch.equal(results[key], want), key
