"""Recipes small enough to be trained in a test."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping

from threer.training.recipes import parse_recipe
from threer.training.recipes.recipe import Recipe

TINY = """
description = "tiny"
family = "{family}"
{init}
[network]
image_size = 32
enc_dim = 32
enc_depth = 1
enc_heads = 2
dec_dim = 32
dec_depth = 2
dec_heads = 2
absolute_positions = true
ray_prior = 0.5
pixel_bias = true
{network}
[data]
samples_per_epoch = 100
[data.sources.synthetic]
[synthetic]
frames = 5
pool = 8
first = 4
reuse = 4.0
colour = 0.5
[views]
{views}
[resolution]
sizes = [[32, 32]]
[objective]
{objective}
[optimizer]
name = "{optimizer}"
clip = 1.0
ema = 0.9
[schedule]
lr = {lr}
min_lr = 1e-5
minutes = 1
warmup = 0.1
[batch]
per_device = 4
{batch}
[validation]
samples = 2
every = 0.5
views = {validated}
"""
PAIRS = {
    "family": "dust3r",
    "init": "",
    "network": "",
    "views": 'count = [2, 2]\nsampling = "pair"',
    "objective": 'name = "dust3r"',
    "batch": "",
    "optimizer": "adamw",
    "lr": "1e-4",
    "validated": "2",
}
WINDOWS = PAIRS | {
    "family": "slam3r",
    "network": "point_prior = true",
    "optimizer": "muon",
    "lr": "1e-3",
    "views": 'count = [4, 5]\nsampling = "window"\nreference = "random"',
    "objective": 'name = "slam3r"\npoint_noise = 0.1',
    "batch": "accumulate = 2",
    "validated": "4",
}


def tiny_recipe(texts: Mapping[str, str], name: str = "tiny") -> Recipe:
    """`PAIRS` or `WINDOWS`, or with other texts in their places."""
    return parse_recipe(name, tomllib.loads(TINY.format(**texts)))
