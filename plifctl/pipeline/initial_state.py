"""Measurements of the figure ``start``: the first training step of the gesture network at several τ₀."""

from __future__ import annotations

import numpy as np
import torch

from plifctl.config.experiment import ExperimentSpec
from plifctl.config.registry import Registry
from plifctl.data.events import Events
from plifctl.data.framer import count_frames
from plifctl.data.synthetic import simulate_recording
from plifctl.training.initial_state import InitialState, measure_initial_state

EXPERIMENT = "gesture-plif"
"""Its network is among the deepest of the paper, and its frames can be simulated."""

TAUS = (1.5, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Time constants at the start, in time steps."""

SAMPLES, SIMULATION_SEED = 4, 2020


def measure_initial_states(registry: Registry) -> tuple[str, dict[float, InitialState]]:
    """Returns what they are measured on, for the caption, and the states by τ₀."""
    specs = {tau: registry.experiment(EXPERIMENT, overrides=(f"neuron.tau_0={tau}",)).spec for tau in TAUS}
    first = specs[TAUS[0]]
    x, labels = _simulated_batch(first)
    about = (
        f"The network of {first.dataset.title} (recipe {first.recipe}), T = {first.T}, weights of seed "
        f"{first.train.seed}, on one batch of {SAMPLES} simulated gestures of seed {SIMULATION_SEED}."
    )
    return about, {tau: measure_initial_state(spec, x, labels) for tau, spec in specs.items()}


def _simulated_batch(spec: ExperimentSpec) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns frames ``[N, T, P, H, W]`` and labels of the first gestures of a simulated recording."""
    events, windows = simulate_recording(np.random.default_rng(SIMULATION_SEED))
    frames, labels = [], []
    for number, start, end in windows[:SAMPLES]:
        sample = Events.of(events[(events["t"] >= start) & (events["t"] < end)])
        frames.append(count_frames(spec.framing, sample, where="simulated gesture"))
        labels.append(number - 1)
    return torch.from_numpy(np.stack(frames)).float(), torch.tensor(labels)
