"""Share of each layer in a training step, dense and event-driven: ``make bench-shares``.

The cost of an event-driven layer depends on how many of its inputs fire, so the networks are trained first, for a few
epochs on real data. Then the parts of one training step are timed on the tensors that they have in it: the products of
each layer in both ways, scans, statistics of batch norm, the optimizer. Last, the time that the network takes for one
recording in evaluation.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

import plifctl
from benchmarks import layers, steps
from benchmarks.measure import Benchmark, Figure, Setting, below, in_turn, interleaved, run, within
from benchmarks.tables import ONE_RECORDING, share_tables
from plifctl.cache import Cache
from plifctl.config.choices import Kernel
from plifctl.config.experiment import ExperimentSpec
from plifctl.errors import RawDataError
from plifctl.exchange.model import TrainedModel, load_trained
from plifctl.runs import Run, list_runs
from plifctl.snn import kernels
from plifctl.snn.kernels import cpu, event_driven, patches
from plifctl.snn.layers import BatchNorm, Conv
from plifctl.snn.networks import SpikingNetwork
from plifctl.snn.neurons import SpikingLayer
from plifctl.training.batches import BatchLoader
from plifctl.training.process import keep_freed_memory
from plifctl.training.splits import make_split

DENSE = "the same, dense"
_CPU_PASSES = {"sum_deviations": "norm statistics", "forward": "scan forward", "backward": "scan backward"}
"""Functions of the CPU backend, and the part of a step that each of them is."""


@dataclass(frozen=True)
class Recipe:
    """A short training: experiment, data and length; everything else is the paper's.

    Attributes:
        experiment: Name of the experiment.
        dataset: Its data set.
        folder: Its folder among the real recordings.
        T: Frames of a recording; None: images.
        epochs: Number of epochs.
        batch: Samples in a batch.
        subset: Share of each class.
        note: Remark for the reader.
    """

    experiment: str
    dataset: str
    folder: str
    T: int | None
    epochs: int
    batch: int
    subset: float = 1.0
    note: str = ""

    def __str__(self) -> str:
        """The recipe as the name of a folder."""
        return f"{self.experiment}-{self.epochs}-epochs-of-{self.subset:g}-batch-{self.batch}"


NMNIST = Recipe("nmnist-plif", "nmnist", "NMNIST", T=10, epochs=4, batch=16)
GESTURE = Recipe("gesture-plif", "gesture", "DvsGesture", T=20, epochs=8, batch=4)
FASHION = Recipe("fashion-mnist-plif", "fashion-mnist", "FashionMNIST", T=None, epochs=1, batch=16, subset=0.1)
MNIST = replace(
    FASHION, experiment="mnist-plif", dataset="mnist", folder="MNIST", note="MNIST, because Fashion-MNIST is not here"
)


def shares(*recipes: Recipe) -> Benchmark:
    """Returns a benchmark of the first recipe whose raw files are here."""

    def measured(setting: Setting) -> Iterator[Figure]:
        for recipe in recipes:
            try:
                cache = _prepare(recipe, setting)
            except RawDataError as error:
                print(f"left out: {recipe.experiment}: {error}", file=sys.stderr)
                continue
            yield from _figures(recipe, cache, _trained_run(recipe, setting), setting)
            return

    return measured


def _prepare(recipe: Recipe, setting: Setting) -> Cache:
    raw = setting.shared / recipe.folder
    return plifctl.prepare(
        recipe.dataset,
        recipe.T,
        raw=raw if raw.is_dir() else None,  # else where systems keep data sets
        verify=False,  # the recordings are a subset
        download=False,
        cache_dir=setting.kept / "cache",
    )


def _trained_run(recipe: Recipe, setting: Setting) -> Run:
    """Returns a finished training; one that an earlier call kept is used again, an interrupted one resumed."""
    runs_dir = setting.kept / "runs" / str(recipe)
    runs_dir.mkdir(parents=True, exist_ok=True)
    known = list_runs(runs_dir)
    if known and known[-1].status() == "finished":
        return known[-1]
    print(f"training {recipe} …", file=sys.stderr, flush=True)
    places: dict[str, Any] = {"cache_dir": setting.kept / "cache", "runs_dir": runs_dir, "device": "cpu"}
    if known:
        return plifctl.train(resume=known[-1], **places)
    return plifctl.train(
        recipe.experiment,
        epochs=recipe.epochs,
        subset=recipe.subset,
        overrides={"train.batch_size": recipe.batch},
        **places,
    )


class _Layer(NamedTuple):
    """A layer in a training step: what it computes from, and what it is followed by.

    Attributes:
        name: Its name.
        layer: The layer.
        x: Its input, ``[T, N, ...]``.
        grad: The gradient of its output.
        chosen: Whether it is event-driven.
        passes: Of the spiking stage after it: a function for each part of :data:`_CPU_PASSES`.
    """

    name: str
    layer: Conv | nn.Linear
    x: Tensor
    grad: Tensor
    chosen: bool
    passes: Mapping[str, Callable[[], object]]

    @property
    def density(self) -> float:
        """Share of inputs that are not 0."""
        return float(self.x.count_nonzero()) / self.x.numel()


class _Step(NamedTuple):
    """A training step whose parts can be run alone.

    Attributes:
        run: The complete step.
        layers: Its layers that have weights.
        optimizer: Its last part.
    """

    run: Callable[[], object]
    layers: list[_Layer]
    optimizer: Callable[[], object]


def _figures(recipe: Recipe, cache: Cache, trained: Run, setting: Setting) -> Iterator[Figure]:
    model = load_trained(trained.checkpoint("last"))
    step = _take_apart(model.spec, model.network, _batch(cache, model.spec))
    works = dict(_works(step))
    with torch.no_grad():
        found = in_turn(works, 2 * setting.pairs)
    labels: dict[str, str | float] = {"network": recipe.experiment}
    accuracy = trained.metrics()[-1]["test_accuracy"]
    samples = make_split("A", model.spec, cache)
    epochs = "1 epoch" if recipe.epochs == 1 else f"{recipe.epochs} epochs"
    note = (
        f"T={model.spec.T}, batch {recipe.batch}, after {epochs} of {len(samples.train)} samples; "
        f"test accuracy {100 * accuracy:.1f} % of {len(samples.test)}" + (recipe.note and f"; {recipe.note}")
    )
    whole = within(
        f"{recipe.experiment}: training step",
        "s",
        found["step"],
        found["dense step"],
        "the same, all layers dense",
        None,
    )
    yield replace(whole, note=note, labels={**labels, "part": "step", "note": note})
    yield from _figures_of_parts(step, found, labels)
    if model.spec.dataset.kind == "events":
        yield replace(_one_recording(model, cache, 4 * setting.pairs), labels={**labels, "part": ONE_RECORDING})


def _one_recording(model: TrainedModel, cache: Cache, pairs: int) -> Figure:
    """Returns the time in evaluation of test recordings one at a time, each the next one, beside the same all dense."""
    rows = make_split("A", model.spec, cache).test
    batch = next(BatchLoader(cache, model.spec, torch.device("cpu")).evaluation_batches(rows))
    network, T = model.fold().network.eval(), model.spec.T
    inputs = {who: cycle(batch.x.split(1)) for who in ("ours", "dense")}

    @torch.inference_mode()
    def ours() -> None:
        network(next(inputs["ours"]), T)

    @torch.inference_mode()
    def dense() -> None:
        with mock.patch.object(kernels, "_may_be_event_driven", return_value=False):
            network(next(inputs["dense"]), T)

    times = interleaved(ours, dense, pairs)
    return within(f"{model.spec.name}: {ONE_RECORDING}", "s", *times, "the same, all layers dense", 0.4)


def _works(step: _Step) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yields everything that is timed, by name: of a layer ``layer: part``, and ``layer: part, dense``."""

    def dense_step() -> None:
        with mock.patch.object(kernels, "apply_synapses", _apply_dense), _ANY_INPUTS:
            step.run()

    yield "step", torch.enable_grad()(step.run)
    yield "dense step", torch.enable_grad()(dense_step)
    yield "optimizer", step.optimizer
    for index, one in enumerate(step.layers):
        with torch.enable_grad():
            pairs = {
                "forward": layers.forward(one.layer, one.x),
                "weight gradient": layers.weight_gradient(one.layer, one.x, one.grad),
            }
            if index and isinstance(one.layer, Conv):
                pairs["input gradient"] = layers.input_gradient(one.layer, one.x, one.grad)
        for part, ways in pairs.items():
            dense = ways.dense()
            torch.testing.assert_close(ways.event_driven(), dense, rtol=0, atol=1e-3 * float(dense.abs().max()))
            yield f"{one.name}: {part}", ways.event_driven
            yield f"{one.name}: {part}, dense", ways.dense
        if index and isinstance(one.layer, nn.Linear):
            yield f"{one.name}: input gradient", layers.input_gradient(one.layer, one.x, one.grad).dense
        for part, work in one.passes.items():
            yield f"{one.name}: {part}", work


def _figures_of_parts(
    step: _Step, found: Mapping[str, list[float]], labels: Mapping[str, str | float]
) -> Iterator[Figure]:
    """Yields a figure for each part, with its share of the step, and one of what is left."""
    wholes = np.array([found["dense step"], found["step"]])
    medians, rest = np.median(wholes, 1), wholes.copy()

    def share(figure: Figure, dense: list[float], chosen: list[float], more: dict[str, str | float]) -> Figure:
        part = 100 * np.median([dense, chosen], 1) / medians
        note = f"{part[0]:.1f} % of the dense step, {part[1]:.1f} % of the event-driven step"
        percents = {"dense_percent": float(part[0]), "event_driven_percent": float(part[1])}
        return replace(figure, note=note, labels={**labels, **more, **percents})

    layers_by_name = {one.name: one for one in step.layers}
    for name, times in found.items():
        layer_name, _, part = name.partition(": ")
        if name in ("step", "dense step") or part.endswith(", dense"):
            continue
        dense = found.get(f"{name}, dense", times)
        layer = layers_by_name.get(layer_name)
        chosen = times if layer is None or layer.chosen else dense
        rest -= np.array([dense, chosen])
        more: dict[str, str | float] = {"part": part or name}
        title = f"{labels['network']}, {name}"
        if layer is not None:
            kind = "event-driven" if layer.chosen else "dense"
            more |= {"layer": layer_name, "active_inputs": layer.density, "chosen": kind}
            title = f"{labels['network']}, {layer_name} ({100 * layer.density:.1f} % active, auto: {kind}): {part}"
        single = below(title, "s", times, None)
        yield share(single if dense is times else within(title, "s", times, dense, DENSE, None), dense, chosen, more)
    left = below(f"{labels['network']}, rest", "s", list(rest[1]), None)
    yield share(left, list(rest[0]), list(rest[1]), {"part": "rest"})


_ANY_INPUTS = mock.patch.object(patches, "pays", return_value=False)
"""Context in which the layer of few inputs is one like the others, its convolution apart from its neurons."""


def _apply_dense(layer: Conv | nn.Linear, x: Tensor, kernel: Kernel) -> Tensor:
    return event_driven.dense(layer, x.flatten(2) if isinstance(layer, nn.Linear) else x)


def _batch(cache: Cache, spec: ExperimentSpec) -> steps.Batch:
    """Returns the first training batch of the next epoch."""
    rows = make_split("A", spec, cache).train
    batch = next(BatchLoader(cache, spec, torch.device("cpu")).training_batches(rows, spec.train.epochs))
    return steps.Batch(batch.x, batch.labels, batch.keys, spec.T)


def _take_apart(spec: ExperimentSpec, network: SpikingNetwork, batch: steps.Batch) -> _Step:
    """Runs a training step of a network once, and keeps the tensors of its parts.

    The learning rate is 0, so that the network, and with it the share of inputs that fire, stays as it was trained.
    """
    still = spec.model_copy(update={"train": spec.train.model_copy(update={"lr": 0.0})})
    ours = steps.Ours(still)
    ours.model.load_state_dict(network.state_dict())
    synapses: list[tuple[nn.Module, Tensor]] = []
    grads: dict[int, Tensor] = {}
    passes: dict[str, list[Callable[[], object]]] = {part: [] for part in _CPU_PASSES.values()}
    apply, optimizer_step = kernels.apply_synapses, ours.optimizer.step
    parameter_grads: list[Tensor | None] = []

    def keep_input(layer: Conv | nn.Linear, x: Tensor, kernel: Kernel) -> Tensor:
        x = x.flatten(2) if isinstance(layer, nn.Linear) else x
        y = apply(layer, x, kernel)
        y.register_hook(partial(grads.__setitem__, len(synapses)))
        synapses.append((layer, x.detach()))
        return y

    def keep_pass(part: str, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        passes[part].append(partial(call, *args, **options))
        return call(*args, **options)

    def keep_grads(norm: Tensor) -> None:
        parameter_grads.extend(parameter.grad for parameter in ours.model.parameters())
        optimizer_step(norm)

    kept_passes = {name: partial(keep_pass, part, getattr(cpu, name)) for name, part in _CPU_PASSES.items()}
    with (
        _ANY_INPUTS,
        mock.patch.object(kernels, "apply_synapses", keep_input),
        mock.patch.object(ours.optimizer, "step", keep_grads),
        mock.patch.multiple(cpu, **kept_passes),
    ):
        ours.step(batch)

    def optimizer() -> None:
        for parameter, grad in zip(ours.model.parameters(), parameter_grads, strict=True):
            parameter.grad = grad
        ours.optimizer.step(ours.layer_metrics.add_gradients())

    passes["scan backward"].reverse()
    return _Step(lambda: ours.step(batch), _layers(ours.model, synapses, grads, passes), optimizer)


def _layers(
    model: SpikingNetwork,
    synapses: list[tuple[nn.Module, Tensor]],
    grads: Mapping[int, Tensor],
    passes: Mapping[str, list[Callable[[], object]]],
) -> list[_Layer]:
    """Returns the layers of a step in order, each with the spiking stage after it."""
    modules = list(model.layers.items())
    found: list[_Layer] = []
    norms = iter(passes["norm statistics"])
    stages = iter(zip(passes["scan forward"], passes["scan backward"], strict=True))
    for index, (name, layer) in enumerate(modules):
        if not isinstance(layer, Conv | nn.Linear):
            continue
        after = [module for _, module in modules[index + 1 : index + 3]]
        parts: dict[str, Callable[[], object]] = {}
        if isinstance(after[0], BatchNorm):
            parts["norm statistics"] = next(norms)
        assert isinstance(after[bool(parts)], SpikingLayer), f"{name}: no spiking layer after it"
        parts["scan forward"], parts["scan backward"] = next(stages)
        kept, x = synapses[len(found)]
        assert kept is layer, f"{name}: not computed by apply_synapses"
        found.append(_Layer(name, layer, x, grads[len(found)], layers.is_chosen(layer, x), parts))
    return found


if __name__ == "__main__":
    steps.limit_threads()
    keep_freed_memory()
    run(
        f"shares of a training step, {steps.THREADS} threads, float32",
        {"nmnist": shares(NMNIST), "gesture": shares(GESTURE), "fashion": shares(FASHION, MNIST)},
        keeps="caches and trained networks",
        tables=share_tables,
    )
