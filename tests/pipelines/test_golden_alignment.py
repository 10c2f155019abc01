"""The published alignment, step by step: pair graphs, first scene, optimised scene, what is masked."""

from __future__ import annotations

import pytest
import torch

import golden_adapter
from golden_cases import Case, case_names, load_case, relative_error

INIT = {"init.im_poses", "init.focals", "init.principal_points", "init.depthmaps", "init.pw_poses", "init.pw_scale"}
POSED = {"final.im_poses", "final.focals", "final.depthmaps", "final.pw_poses", "final.pw_scale", "final.pts3d"}
EXACT = {"edge_scores", "mst_edges", "lr_curve", "final.principal_points", "im_conf", "masks"}


def optimised_cases() -> list[str]:
    """Those at hand; the committed subset is too small for any, the whole reference data has five or more."""
    return [name for name in case_names("geom_ga") if load_case(name).config["mode"] != "PairViewer"]


def test_pair_graphs() -> None:
    case = load_case("geom_dust3r_pairs")
    results = golden_adapter.run(case.config, case.inputs, case.weights)
    assert results.keys() == case.outputs.keys()
    for key, got in results.items():
        assert sorted(got.tolist()) == sorted(case.outputs[key].tolist()), key
        if ".sym1" in key and key.endswith("sym1"):
            half = len(got) // 2
            assert torch.equal(got[:half].flip(1), got[half:]), key


@pytest.mark.parametrize("name", optimised_cases())
def test_published_alignment(name: str) -> None:
    case = load_case(name)
    results = golden_adapter.run(case.config, case.inputs, case.weights)
    assert results.keys() == case.outputs.keys()
    for key in INIT:
        assert relative_error(results[key], case.outputs[key]) < 1e-4, key
    for key in EXACT:
        assert relative_error(results[key], case.outputs[key]) < 1e-5, key
    for key in POSED:
        assert relative_error(results[key], case.outputs[key]) < 1e-2, key
    _check_losses(case, results)
    # What is cleaned away hangs on depths that differ by a hundredth.
    wiped, wanted = (r["im_conf_after_clean_pointcloud"] == 0 for r in (results, case.outputs))
    assert (wiped != wanted).float().mean() < 0.01


def _check_losses(case: Case, results: dict[str, torch.Tensor]) -> None:
    wanted = float(case.outputs["init.loss"])
    exact = wanted < 1e-4
    assert float(results["init.loss"]) < 1e-4 if exact else abs(float(results["init.loss"]) / wanted - 1) < 1e-3
    for key in ("final.loss", "returned_loss"):
        got, wanted = float(results[key]), float(case.outputs[key])
        if "noiseless" in case.name:
            assert got < 2 * wanted, key
        else:
            assert abs(got / wanted - 1) < 2e-3, key
