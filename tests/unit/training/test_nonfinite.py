"""Finding the layer with the first number that is not finite."""

import pytest
import torch
from tiny_training import MemoryRecorder, tiny_spec, tiny_trainer, with_structure

from plifctl.snn.networks import SpikingNetwork
from plifctl.training.nonfinite import find_nonfinite_layer


def network() -> SpikingNetwork:
    return tiny_trainer(MemoryRecorder()).model.eval()


def find(model: SpikingNetwork) -> str | None:
    def forward() -> torch.Tensor:
        found: torch.Tensor = model(torch.ones(2, 1, 28, 28), 2)
        return found

    return find_nonfinite_layer(model, forward, forward)


def test_find_nonfinite_layer_in_output_names_it() -> None:
    model = network()
    model.layers["conv0"].weight.data.fill_(3e38)
    assert find(model) == "conv0 gives an infinite number"


@pytest.mark.parametrize("memory", ["full", "compact"])
@pytest.mark.parametrize("channels", [16, 128])
@pytest.mark.parametrize("layer", ["conv0", "conv1", "bn0"])
def test_find_nonfinite_layer_in_output_of_a_training_step_names_it(layer: str, channels: int, memory: str) -> None:
    convolution = f"c{channels}k3s1-BN-SN-MPk4s4"
    structure = f"{convolution}-{convolution}-FC20-SN-FC100-SN-APk10s10"
    trainer = tiny_trainer(MemoryRecorder(), with_structure(tiny_spec(f"train.memory={memory}"), structure))
    model = trainer.model.train()
    images = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0)).round()
    model.layers[layer].weight.data.fill_(3e38)

    def forward() -> torch.Tensor:
        found: torch.Tensor = model(images, 2, keys=torch.arange(4))
        return found

    found = find_nonfinite_layer(model, forward, lambda: forward().sum().backward())
    assert model.kernel == "auto"
    assert found is not None
    if memory == "full" or layer.startswith("conv"):
        assert found.startswith(f"{layer} gives ")
    else:  # not by the definition, which needs more memory: of the neurons after it at least
        assert found.startswith((f"{layer} gives ", f"sn{layer[-1]} has NaN in the gradient of its a"))


def test_find_nonfinite_layer_in_gradients_names_the_last() -> None:
    model = network()
    for name in ("fc0", "fc1"):
        model.layers[name].weight.grad = torch.full_like(model.layers[name].weight, torch.nan)
    found = find(model)
    assert found == "fc1 has NaN in the gradient of its weight"


def test_find_nonfinite_layer_all_finite_gives_none() -> None:
    model = network()
    assert find(model) is None
    assert not any(layer._forward_hooks for layer in model.layers.values())
