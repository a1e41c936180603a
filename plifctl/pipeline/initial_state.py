"""Measurements of the figure ``start``: the first training step of networks at several τ₀."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch

from plifctl.config.experiment import Experiment
from plifctl.config.lookup import file_of, load_experiment
from plifctl.config.registry import Registry
from plifctl.data.events import Events
from plifctl.data.framer import count_frames
from plifctl.data.synthetic import simulate_recording
from plifctl.pipeline.experiment_cache import experiment_cache
from plifctl.training.batches import Batch, BatchLoader
from plifctl.training.initial_state import InitialState, InitialStates, measure_initial_state
from plifctl.training.splits import make_split

EXPERIMENT = "gesture-plif"
"""The experiment without a cache: its network is among the deepest of the paper, and its frames can be simulated."""

TAUS = (1.5, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Time constants at the start, in time steps."""

MAX_SAMPLES = 16
"""Largest number of samples of a cache: the batch size of the paper."""

SIMULATED_SAMPLES, SIMULATION_SEED = 4, 2020


def measure_initial_states(registry: Registry, experiments: Sequence[str | Path] = ()) -> list[InitialStates]:
    """Returns the states of each experiment in its first training step, with PLIF neurons of each τ₀.

    Args:
        registry: Where experiments are looked up.
        experiments: Names or YAML files; empty: the gesture network on simulated gestures, which needs no cache.

    Raises:
        UsageError: There is no such experiment.
        CacheError: An experiment has no cache; the hint has the command that builds it.
    """
    # every cache is opened before the first measurement, which takes minutes
    batches = [_first_batch(registry, source) for source in dict.fromkeys(experiments)] or [_simulated_batch(registry)]
    return [_states(registry, *found) for found in batches]


def _states(registry: Registry, experiment: Experiment, batch: Batch, about: str) -> InitialStates:
    by_tau: dict[float, InitialState] = {}
    for tau in TAUS:
        neuron = {"neuron.kind": "plif", "neuron.tau": None, "neuron.tau_0": tau}
        by_tau[tau] = measure_initial_state(registry.change_experiment(experiment, neuron).spec, batch)
    return InitialStates(f"{experiment.spec.dataset.title} ({experiment.spec.name})", about, by_tau)


def _first_batch(registry: Registry, source: str | Path) -> tuple[Experiment, Batch, str]:
    """Returns an experiment, the first batch of its training with protocol A, and a sentence on it.

    Of a batch of more than ``MAX_SAMPLES`` these are the first ones.
    """
    file = file_of(source, registry.experiments())
    experiment = load_experiment(source, registry=registry)
    size = min(experiment.spec.train.batch_size, MAX_SAMPLES)
    experiment = registry.change_experiment(experiment, {"train.batch_size": size})
    spec = experiment.spec
    cache = experiment_cache(spec, file=file)
    loader = BatchLoader(cache, spec, torch.device("cpu"))
    with closing(loader.training_batches(make_split("A", spec, cache).train, 0)) as batches:
        batch = next(batches)
    about = (
        f"{spec.name}: recipe {spec.recipe}, T = {spec.T}, weights of seed {spec.train.seed}, on the first "
        f"{len(batch.x)} training samples of the first epoch, normalised and augmented as in training."
    )
    return experiment, batch, about


def _simulated_batch(registry: Registry) -> tuple[Experiment, Batch, str]:
    """Returns the gesture experiment, the first gestures of a simulated recording, and a sentence on both."""
    experiment = registry.experiment(EXPERIMENT)
    spec = experiment.spec
    events, windows = simulate_recording(np.random.default_rng(SIMULATION_SEED))
    frames, numbers = [], []
    for number, start, end in windows[:SIMULATED_SAMPLES]:
        sample = Events.of(events[(events["t"] >= start) & (events["t"] < end)])
        frames.append(count_frames(spec.framing, sample, where="simulated gesture"))
        numbers.append(number - 1)
    labels = torch.tensor(numbers)
    targets = torch.eye(len(spec.dataset.classes))[labels]
    batch = Batch(torch.from_numpy(np.stack(frames)).float(), labels, targets, torch.arange(len(labels)), len(labels))
    about = (
        f"The network of {spec.dataset.title} (recipe {spec.recipe}), T = {spec.T}, weights of seed "
        f"{spec.train.seed}, on one batch of {len(labels)} simulated gestures of seed {SIMULATION_SEED}."
    )
    return experiment, batch, about
