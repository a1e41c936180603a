"""Every list of choices that YAML, the command line and the API share; imports nothing of the project."""

from __future__ import annotations

from typing import Literal, get_args

Recipe = Literal["paper", "authors"]
"""Set of choices: those of the paper's text, or what the authors' code ran."""

RECIPES: tuple[Recipe, ...] = get_args(Recipe)

Axes = Literal["authors", "spikingjelly"]
"""Reading of CIFAR10-DVS addresses: that of the authors' code, or of SpikingJelly."""

Protocol = Literal["A", "B"]
"""How a run comes to its number: accuracy A or B (facts in docs/concepts.md)."""

Surrogate = Literal["arctan", "sigmoid", "rectangular", "triangular"]
"""What stands for the derivative of the step function in training."""

Layout = Literal["mnist", "fashion-mnist", "cifar10", "nmnist", "cifar10dvs", "gesture", "synthetic-gesture", "folders"]
"""How the raw files of a data set are named, laid out and encoded: as those of a data set that is known, or
``folders``: a folder for each split and class, a recording of any known format for each sample."""

Kernel = Literal["auto", "eager", "fused", "triton"]
"""Implementation of the spiking layers: the definition, one compiled pass on the CPU, or Triton on a GPU."""

DataPlacement = Literal["device", "memory", "disk"]
"""Where samples are held in training: in the memory of the device, in that of the machine, or on disk."""

CheckpointName = Literal["best", "last"]
"""The checkpoints of a run: that of the epoch reported, and that of the last step."""

Compression = Literal["zstd", "gzip", "none"]
"""Compression of the samples of a cache."""
