"""Recipes are read strictly: whatever is wrong is one line that says where and what would be right."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from threer.errors import ThreerError
from threer.training.objectives.settings import PairSettings
from threer.training.recipes import load_recipe, parse_recipe

MINIMAL = """
description = "for the test"
family = "dust3r"
network = { image_size = 32, enc_dim = 32, enc_heads = 2, dec_dim = 32, dec_heads = 2 }
views = { count = [2, 2], sampling = "pair" }
resolution = { sizes = [[32, 32]] }
objective = { name = "dust3r", alpha = 1 }
schedule = { lr = 1e-3, min_lr = 0.0, epochs = 4, warmup = 1 }
batch = { per_device = 2, devices = 3, accumulate = 4 }

[data]
samples_per_epoch = 10
sources = { a = { weight = 3 }, b = {} }

[published]
objective = { symmetrized = false }
"""


def read(*changes: tuple[str, str], published: bool = False) -> Any:
    text = MINIMAL
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return parse_recipe("test", tomllib.loads(text), published)


def test_a_recipe_says_what_its_file_says() -> None:
    recipe = read()
    assert recipe.objective == PairSettings(alpha=1.0)
    assert recipe.objective_name == "dust3r"
    assert recipe.data.shares() == {"a": 0.75, "b": 0.25}
    assert recipe.batch.effective == 24
    assert recipe.schedule.warmup_share == 0.25
    assert recipe.schedule.within(20).warmup == 5
    assert recipe.network.enc_dim == 32
    assert read(published=True).objective == PairSettings(alpha=1.0, symmetrized=False)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("alpha = 1", "alhpa = 1", r"recipe test\.objective has no setting 'alhpa'; did you mean alpha\? Valid: a"),
        ("enc_dim", "encdim", r"network has no setting 'encdim'; did you mean enc_dim\?"),
        ("weight = 3", "wieght = 3", r"data\.sources\.a has no setting 'wieght'; did you mean weight\?"),
        ("views =", "vews =", r"recipe test has no setting 'vews'; did you mean views\?"),
        ("symmetrized = false", "x = 1", r"recipe test \(published\)\.objective has no setting 'x'"),
        ("weight = 3", "weight = -3", r"data\.sources\.a: weight must be above 0, got -3"),
        ("weight = 3", "overlap = [0.9, 0.2]", r"data\.sources\.a: overlap must be two numbers .* 0\.\.1"),
        ("weight = 3", "parallax = [5, 200]", r"data\.sources\.a: parallax must be two numbers .* 0\.\.180"),
        ("weight = 3", 'weight = "3"', r"data\.sources\.a\.weight must be a number, got '3'"),
        ("per_device = 2", "per_device = 2.5", r"batch\.per_device must be a whole number, got 2.5"),
        ("per_device = 2", "per_device = true", r"batch\.per_device must be a whole number, got True"),
        ("count = [2, 2]", "count = [2]", r"views\.count must have 2 entries, got \[2\]"),
        ("count = [2, 2]", "count = [2, 3]", r"pairs have count = \[2, 2\]"),
        ('sampling = "pair"', 'sampling = "pears"', r"views\.sampling must be one of 'pair', .*got 'pears'"),
        ('family = "dust3r"', 'family = "croco"', r"family must be one of 'dust3r', .*got 'croco'"),
        ('name = "dust3r"', 'name = "duster"', r"objective\.name must be one of 'dust3r', .*got 'duster'"),
        ("lr = 1e-3, ", "", r"recipe test\.schedule misses 'lr'"),
        ("epochs = 4", "epochs = 4, minutes = 4", "either epochs or minutes"),
        ("warmup = 1", "warmup = 4", "warm-up of 4 does not fit into 4"),
        ("[[32, 32]]", "[[32, 30]]", "multiples of 16"),
        ("[[32, 32]]", "[32, 32]", r"resolution\.sizes\[0\] must be an array, got 32"),
        ("enc_heads = 2", "enc_heads = 3", "enc_dim 32 cannot be split into"),
        ("samples_per_epoch = 10", "samples_per_epoch = 0", "at least 1, got 0"),
        ("alpha = 1", "alpha = -1", "alpha must be at least 0, got -1"),
        ("sources = { a = { weight = 3 }, b = {} }", "sources = {}", "at least one source"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_in_one_line(old: str, new: str, message: str) -> None:
    with pytest.raises(ThreerError) as caught:
        read((old, new))
    assert re.search(message, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_of_ones_own_are_read_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL)
    assert load_recipe(path).name == "mine"
    path.write_text("a = ")
    with pytest.raises(ThreerError, match="recipe mine: not TOML"):
        load_recipe(path)
    with pytest.raises(ThreerError, match="cannot read the recipe"):
        load_recipe(tmp_path / "none.toml")
    with pytest.raises(ThreerError, match=r"unknown recipe 'dust3r-mimi'; valid: .*dust3r-mini"):
        load_recipe("dust3r-mimi")
