"""What files of computation graphs (NIR, ONNX) have in common: their input, its normalisation, and their metadata."""

from __future__ import annotations

import json
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from plifctl.config.experiment import ExperimentSpec
from plifctl.config.structure import layer_names, parse_structure, shapes_after
from plifctl.exchange.arrays import describe
from plifctl.exchange.model import TrainedModel
from plifctl.snn.layers import BatchNorm, Dropout


def takes_images(trained: TrainedModel) -> bool:
    """Returns whether the network is shown an image at every step, not frames of events."""
    return trained.spec.dataset.kind == "images"


def active_layers(trained: TrainedModel) -> Iterator[tuple[str, nn.Module]]:
    """Yields the layers with their names, without dropout, which does nothing outside training."""
    return ((name, layer) for name, layer in trained.network.layers.items() if not isinstance(layer, Dropout))


def shapes_before(trained: TrainedModel) -> dict[str, tuple[int, ...]]:
    """Returns the shape of the input of each layer, of one sample at one step, by the layer's name."""
    network = trained.network
    layers = parse_structure(network.network.structure)
    shapes = [network.input_shape, *shapes_after(layers, network.input_shape, network.classes)]
    return dict(zip(layer_names(layers), shapes, strict=False))  # the last shape is that of the output


def normalisation(spec: ExperimentSpec) -> tuple[Tensor, Tensor] | None:
    """Returns mean and standard deviation of each channel, ``[C]``, of images of values 0…1; None: not normalised."""
    found = spec.normalisation
    return None if found is None else (torch.tensor(found[0]), torch.tensor(found[1]))


def normalise(spec: ExperimentSpec, x: Tensor) -> Tensor:
    """Returns inputs of the network: normalised images of values 0…1; event frames as they are."""
    if (found := normalisation(spec)) is None:
        return x
    mean, std = (values.to(x).view(-1, 1, 1) for values in found)
    return (x - mean) / std


def channel_map(norm: BatchNorm) -> tuple[Tensor, Tensor]:
    """Returns scale and shift of each channel, float64 ``[C]``, that a batch norm applies in evaluation."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.detach().double() - norm.running_mean.double() * scale


def metadata(trained: TrainedModel) -> dict[str, str]:
    """Returns the keys of :mod:`plifctl.exchange.arrays` as text; lists and numbers as JSON.

    ``experiment`` is the name of the experiment, and ``input`` says what the graph takes. ``mean`` and ``std`` are
    empty: inputs are used as they are, because the graph normalises them. Test samples are not listed.
    """
    about = {**describe(trained), "mean": [], "std": [], "experiment": trained.spec.name}
    about["input"] = describe_input(trained)
    del about["test_samples"]  # of use to plifctl alone, which does not read graphs
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in about.items()}


def describe_input(trained: TrainedModel) -> str:
    """Returns what the input of the graph is at each step."""
    shape = "×".join(map(str, trained.network.input_shape))
    if not takes_images(trained):
        return f"event frames, {shape} counts at each of T = {trained.spec.T} steps"
    return f"an image, {shape} values from 0 to 1, the same at each of T = {trained.spec.T} steps"


def normalisation_notes(trained: TrainedModel) -> list[str]:
    """Returns who normalises images, as a note; nothing if they are used as they are."""
    if normalisation(trained.spec) is None:
        return []
    return ["the graph normalises images itself: give it values from 0 to 1; its mean and std are empty"]
