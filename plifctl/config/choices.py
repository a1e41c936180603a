"""Every list of choices that YAML, the command line and the API share; imports nothing of the project."""

from __future__ import annotations

from typing import Literal, get_args

Recipe = Literal["paper", "published"]
"""Which choices: of the text, or of the authors' code."""

RECIPES: tuple[Recipe, ...] = get_args(Recipe)

Protocol = Literal["A", "B"]
"""How a run comes to its number: accuracy A or B (facts in docs/concepts.md)."""

Surrogate = Literal["arctan", "sigmoid", "rectangular", "triangular"]
"""What stands for the derivative of the step function in training."""

Layout = Literal["mnist", "fashion-mnist", "cifar10", "nmnist", "cifar10dvs", "gesture", "synthetic-gesture", "folders"]
"""How the raw files of a data set are named, laid out and encoded: as those of a data set that is known, or
``folders``: a folder for each split and class, a recording of any known format for each sample."""
