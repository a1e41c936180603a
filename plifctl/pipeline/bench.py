"""Times an experiment on this machine: seconds of an epoch with and without loading; implements ``doctor --bench``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plifctl.cache import Cache
from plifctl.config.choices import Kernel, Recipe
from plifctl.config.experiment import Experiment, ExperimentSpec
from plifctl.config.lookup import file_of, load_experiment, load_registry
from plifctl.errors import CacheError, CorruptCacheError, UsageError
from plifctl.evaluation.step_cost import registry_samples
from plifctl.pipeline.commands import prepare_command_of
from plifctl.pipeline.device import find_device, open_device
from plifctl.pipeline.experiment_cache import experiment_cache
from plifctl.runs import describe_machine
from plifctl.training.kernel_selection import select_kernel
from plifctl.training.optimizer import check_options
from plifctl.training.process import out_of_memory_errors
from plifctl.training.sample_store import choose_placement
from plifctl.training.splits import Split, make_split
from plifctl.training.step_times import BatchTimer, SyntheticSamples


@dataclass(frozen=True)
class BenchOptions:
    """Options of :func:`bench_experiment`.

    Attributes:
        experiment: A name in the registry, a YAML file, or an experiment.
        overrides: Changes to it, texts ``key=value``.
        recipe: Recipe of a named experiment; None: ``paper``.
        device: Torch device; None: a GPU where there is one.
        kernel: Kernel of the spiking layers.
        seconds: Time to spend on timed steps, beside preparations and the first steps.
        cache_dir: Cache directory; None: PLIFCTL_CACHE_DIR, or the default one.
    """

    experiment: str | Experiment
    overrides: tuple[str, ...] = ()
    recipe: Recipe | None = None
    device: str | None = None
    kernel: Kernel = "auto"
    seconds: float = 30.0
    cache_dir: Path | None = None


@dataclass(frozen=True)
class ExperimentTimes:
    """Times of an experiment on a machine, of one process; seconds.

    Attributes:
        experiment: Name of the experiment.
        recipe: Its recipe.
        T: Number of time steps.
        batch_size: Samples of a batch.
        epochs: Epochs that the experiment trains.
        train: Number of training samples.
        test: Number of test samples.
        steps_per_epoch: Training steps of an epoch.
        kernel: Kernel, and how it was chosen.
        step: A training step without loading.
        loaded_step: The same with loading and augmentation; None without a cache.
        evaluation_batch: A batch of the test; with loading if there is a cache.
        epoch_without_loading: An epoch, training and test, without loading of the training samples.
        epoch: An epoch as training does it; None without a cache.
        training: All epochs of the experiment; without a cache without loading.
        samples: ``cache``, or ``synthetic`` without one.
        prepare: The command that builds the missing cache; None if there is one.
        environment: Versions and machine.
    """

    experiment: str
    recipe: Recipe
    T: int
    batch_size: int
    epochs: int
    train: int
    test: int
    steps_per_epoch: int
    kernel: str
    step: float
    loaded_step: float | None
    evaluation_batch: float
    epoch_without_loading: float
    epoch: float | None
    training: float
    samples: str
    prepare: str | None
    environment: dict[str, Any]


def bench_experiment(options: BenchOptions) -> ExperimentTimes:
    """Times training steps and test batches of an experiment, and estimates its epochs from them.

    Weights are those before training. Event-driven kernels of a CPU take longer where more neurons fire.

    Raises:
        UsageError: Unknown experiment, device or option.
        CacheError: The cache is damaged.
        OutOfMemoryError: A batch does not fit.
    """
    if not options.seconds > 0:
        raise UsageError(f"--seconds {options.seconds:g}: expected a number above 0")
    registry = load_registry()
    spec = load_experiment(options.experiment, options.overrides, recipe=options.recipe, registry=registry).spec
    check_options(spec.train)
    device = find_device(options.device, options.kernel)
    file = None if isinstance(options.experiment, Experiment) else file_of(options.experiment, registry.experiments())
    command = prepare_command_of(spec, file=file, cache_dir=options.cache_dir)
    cache = _find_cache(spec, options.cache_dir)
    selection = select_kernel(spec, device, kernel=options.kernel)
    open_device(device)
    samples = cache or SyntheticSamples(spec, spec.train.batch_size)
    place, _ = choose_placement(samples.nbytes, device)
    split = _split(spec, cache)
    sizes = (len(split.train), len(split.test)) if cache else _sizes(spec, command)
    share = options.seconds / (3 if cache else 2)
    with out_of_memory_errors(f"out of memory with batches of {spec.train.batch_size}", "--set train.batch_size=…"):
        kernel, graph = selection.kernel, selection.graph
        timer = BatchTimer(spec, samples, device, kernel=kernel, graph=graph, data_in=place)
        step = timer.time_step(split.train[: spec.train.batch_size], share)
        loaded = timer.time_loaded_step(split.train, share) if cache else None
        evaluation = timer.time_evaluation(split.test, share)
    steps = spec.train.steps_per_epoch(sizes[0])
    test = evaluation * spec.train.evaluation_steps(sizes[1])
    epoch = None if loaded is None else steps * loaded + test
    return ExperimentTimes(
        experiment=spec.name,
        recipe=spec.recipe,
        T=spec.T,
        batch_size=spec.train.batch_size,
        epochs=spec.train.epochs,
        train=sizes[0],
        test=sizes[1],
        steps_per_epoch=steps,
        kernel=selection.describe(),
        step=step,
        loaded_step=loaded,
        evaluation_batch=evaluation,
        epoch_without_loading=steps * step + test,
        epoch=epoch,
        training=spec.train.epochs * (epoch or steps * step + test),
        samples="cache" if cache else "synthetic",
        prepare=None if cache else command,
        environment=describe_machine(str(device), torch.get_num_threads(), 1),
    )


def _find_cache(spec: ExperimentSpec, cache_dir: Path | None) -> Cache | None:
    try:
        return experiment_cache(spec, cache_dir)
    except CorruptCacheError:
        raise
    except CacheError:
        return None


def _split(spec: ExperimentSpec, cache: Cache | None) -> Split:
    if cache is None:
        rows = np.arange(spec.train.batch_size)
        return Split(rows, rows[:0], rows)
    return make_split("A", spec, cache)


def _sizes(spec: ExperimentSpec, command: str) -> tuple[int, int]:
    """Returns the numbers of training and test samples that the registry states; ``command`` builds the cache."""
    known = registry_samples(spec, "A")
    if known is None:
        raise UsageError(
            f"{spec.dataset.title}: the number of samples is not known before there is a cache",
            hint=command,
        )
    return known
