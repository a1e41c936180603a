"""Finding the layer with the first number that is not finite."""

import torch
from tiny_training import MemoryRecorder, tiny_trainer

from plifctl.snn.networks import SpikingNetwork
from plifctl.training.nonfinite import find_nonfinite_layer


def network() -> SpikingNetwork:
    return tiny_trainer(MemoryRecorder()).model.eval()


def test_find_nonfinite_layer_in_output_names_it() -> None:
    model = network()
    model.layers["conv0"].weight.data.fill_(3e38)
    assert find_nonfinite_layer(model, lambda: model(torch.ones(2, 1, 28, 28), 2)) == "conv0 gives an infinite number"


def test_find_nonfinite_layer_in_gradients_names_the_last() -> None:
    model = network()
    for name in ("fc0", "fc1"):
        model.layers[name].weight.grad = torch.full_like(model.layers[name].weight, torch.nan)
    found = find_nonfinite_layer(model, lambda: model(torch.ones(2, 1, 28, 28), 2))
    assert found == "fc1 has NaN in the gradient of its weight"


def test_find_nonfinite_layer_all_finite_gives_none() -> None:
    model = network()
    assert find_nonfinite_layer(model, lambda: model(torch.ones(2, 1, 28, 28), 2)) is None
    assert not any(layer._forward_hooks for layer in model.layers.values())
