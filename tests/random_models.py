"""Networks with random weights as if they were trained: for tests of the formats that networks travel in."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from plifctl.config.lookup import load_registry
from plifctl.exchange.model import TrainedModel
from plifctl.snn.bn_folding import fold_batch_norm, fold_targets
from plifctl.snn.layers import BatchNorm, Conv
from plifctl.snn.networks import SpikingNetwork
from plifctl.snn.neurons import SpikingLayer


def random_model(
    structure: str,
    shape: tuple[int, int, int] = (2, 9, 9),
    *,
    experiment: str = "demo",
    T: int = 8,
    fold: bool = True,
    dtype: torch.dtype = torch.float64,
    **neuron: Any,
) -> TrainedModel:
    """Returns a network whose layers fire, with random weights, batch norms, time constants and learnt thresholds.

    Args:
        structure: Ends in FC22-SN-APk2s2, for 11 classes; FC20-SN-APk2s2 of an experiment with 10.
        shape: Shape of its input.
        experiment: The experiment that it is of.
        T: Number of time steps.
        fold: Fold batch norms, as for formats without.
        dtype: Type of its weights.
        neuron: Values that the experiment's neuron does not have.
    """
    changes = {"network.structure": structure, **{f"neuron.{key}": value for key, value in neuron.items()}}
    overrides = [f"{key}={yaml.safe_dump(value).split()[0]}" for key, value in changes.items()]
    spec = load_registry().experiment(experiment, overrides=overrides).spec.model_copy(update={"T": T})
    torch.manual_seed(0)
    network = SpikingNetwork(spec.network, spec.neuron, shape, len(spec.dataset.classes), "eager")
    _randomise(network)
    trained = TrainedModel(Path("run/checkpoints/best.pt"), spec, network.to(dtype).eval(), None, spec.digest, {})
    _make_all_layers_fire(trained)
    if not fold:
        return trained
    return replace(trained, network=fold_batch_norm(network), folded=fold_targets(spec.network))


@torch.no_grad()
def _randomise(network: SpikingNetwork) -> None:
    for name, parameter in network.named_parameters():
        if name.endswith(".a"):
            parameter.copy_(torch.randn(parameter.shape))
        elif name.endswith(".v_threshold"):
            parameter.mul_(0.5 + torch.rand(()))
    for layer in network.layers.values():
        if isinstance(layer, BatchNorm):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.normal_(0, 0.3)
            layer.running_var.uniform_(0.5, 2)
            layer.weight.uniform_(0.5, 2)
            layer.bias.normal_(0.3, 0.5)


@torch.no_grad()
def _make_all_layers_fire(trained: TrainedModel) -> None:
    """Scales the weights before each layer until it fires at a rate of 0.05 to 0.8."""
    layers = list(trained.network.layers.items())
    x = normalised(trained, random_input(trained, 8))
    for index, (name, layer) in enumerate(layers):
        synapses = [before for _, before in layers[:index] if isinstance(before, Conv | nn.Linear)]
        for _ in range(40 if isinstance(layer, SpikingLayer) else 0):
            spikes: dict[str, Tensor] = {}
            trained.network(x, trained.spec.T, observe=spikes.__setitem__)
            rate = spikes[name].mean().item()
            if 0.05 < rate < 0.8:
                break
            synapses[-1].weight.mul_(1.3 if rate < 0.05 else 0.8)


def random_input(trained: TrainedModel, samples: int = 3) -> Tensor:
    """Returns event frames ``[N, T, P, H, W]`` of small counts, or images ``[N, C, H, W]`` of values 0…1."""
    generator = torch.Generator().manual_seed(1)
    shape = trained.network.input_shape
    dtype = next(trained.network.parameters()).dtype
    if trained.spec.dataset.kind == "images":
        return torch.rand((samples, *shape), generator=generator, dtype=dtype)
    return torch.poisson(torch.full((samples, trained.spec.T, *shape), 0.5, dtype=dtype), generator)


def normalised(trained: TrainedModel, x: Tensor) -> Tensor:
    """Returns what the network takes, by the values of the data set: the exporters have code of their own for it."""
    if trained.spec.train.normalise != "per-set":
        return x
    dataset = trained.spec.dataset
    mean, std = (torch.tensor(values, dtype=x.dtype).view(-1, 1, 1) for values in (dataset.mean, dataset.std))
    return (x - mean) / std


@torch.no_grad()
def run_model(trained: TrainedModel, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Returns the spikes of each layer before pooling ``[T, N, ...]``, and the votes ``[T, N, classes]``.

    Args:
        trained: The network; each of its layers must fire, and not always.
        x: Its input, images not normalised.
    """
    spikes: dict[str, Tensor] = {}
    votes = trained.network(normalised(trained, x), trained.spec.T, observe=spikes.__setitem__)
    for name, values in spikes.items():
        assert 0.02 < values.mean().item() < 0.98, f"{name} would show nothing"
    return spikes, votes
