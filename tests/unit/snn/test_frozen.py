"""Frozen parameters: every kernel gives the spikes and gradients of the definition, in float64."""

import pytest
import torch
from torch import Tensor, nn

from plifctl.config.choices import Kernel, Memory
from plifctl.config.network import NetworkSpec, NeuronSpec
from plifctl.snn.kernels import event_driven
from plifctl.snn.layers import BatchNorm
from plifctl.snn.networks import SpikingNetwork
from plifctl.training.fine_tuning import select_frozen

PLIF = NeuronSpec(
    kind="plif", tau_0=2.0, v_threshold=0.4, v_reset=0.0, surrogate="arctan", detach_reset=True, learn_threshold=True
)
STRUCTURE = "c{}k3s1-BN-SN-MPk2s2-c{}k3s1b-BN-SN-MPk2s2-DP-FC30b-SN-DP-FC20-SN-APk10s10"
PATTERNS = [
    ("conv*",),
    ("conv0", "bn0", "sn0"),
    ("conv1", "bn1"),
    ("bn*",),
    ("bn0", "sn*"),
    ("*.bias",),
    ("fc*", "layers.bn1.weight"),
    ("[!f]*", "fc0*"),  # all but the last layer, whose neurons are frozen
]


class AffineNorm(BatchNorm):
    """A batch norm of constant statistics by its equation; all of its parameters learn."""

    def forward(self, x: Tensor) -> Tensor:
        assert self.running_mean is not None
        assert self.running_var is not None
        mean, variance, weight, bias = (
            part[:, None, None] for part in (self.running_mean, self.running_var, self.weight, self.bias)
        )
        return (x - mean) / (variance + self.eps).sqrt() * weight + bias


def network(kernel: Kernel, memory: Memory = "full", size: int = 32) -> SpikingNetwork:
    spec = NetworkSpec(name="test", structure=STRUCTURE.format(size, size + 4), dropout=0.5, batch_norm="per-step")
    torch.manual_seed(3)
    model = SpikingNetwork(spec, PLIF, (2, 8, 9), 2, kernel, memory).double()
    for name, values in model.state_dict().items():
        if name.endswith("running_mean"):
            values.normal_(0, 0.3)
        elif ".bn" in name and name.endswith("bias"):
            values.normal_(0.4, 0.3)
        elif name.endswith("running_var"):
            values.uniform_(0.5, 2.0)
        elif values.dim() == 2:
            values *= 4 if size == 32 else 12
    return model


def constant_norms(model: SpikingNetwork, frozen: list[str]) -> list[str]:
    """Returns the batch norms that are frozen as a whole."""
    norms = [name for name, layer in model.layers.items() if isinstance(layer, BatchNorm)]
    return [name for name in norms if {f"layers.{name}.weight", f"layers.{name}.bias"} <= set(frozen)]


def definition(frozen: list[str], size: int) -> SpikingNetwork:
    """The network without frozen parameters; batch norms that would be frozen have constant statistics."""
    model = network("eager", size=size)
    for name in constant_norms(model, frozen):
        constant = AffineNorm(model.layers[name].num_features, per_step=True).double()
        constant.load_state_dict(model.layers[name].state_dict())
        model.layers[name] = constant
    return model


def run(model: SpikingNetwork, samples: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.poisson(torch.full((samples, 3, 2, 8, 9), 0.3, dtype=torch.float64), generator=generator)
    votes: Tensor = model.train()(x, keys=torch.arange(samples))
    (votes - torch.tensor([1.0, 0.0])).square().mean().backward()  # type: ignore[no-untyped-call]
    return votes.detach()


def assert_equals_definition(
    patterns: tuple[str, ...], samples: int, kernel: Kernel, memory: Memory = "full", size: int = 32
) -> None:
    model = network(kernel, memory, size)
    frozen = select_frozen(model, patterns)
    model.freeze(frozen)
    expected = definition(frozen, size)
    before = {name: values.clone() for name, values in model.state_dict().items()}
    votes = run(model, samples)
    assert torch.equal(votes, run(expected, samples))
    assert 0 < votes.mean() < 1
    learning = dict(expected.named_parameters())
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (name in frozen), name
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, learning[name].grad, rtol=1e-9, atol=1e-12)
    constant = constant_norms(model, frozen)
    for name, values in model.state_dict().items():
        torch.testing.assert_close(values, expected.state_dict()[name], rtol=1e-12, atol=1e-12)
        if "running" in name:
            assert torch.equal(values, before[name]) == (name.split(".")[1] in constant)


@pytest.mark.parametrize("samples", [3, 1])
@pytest.mark.parametrize("patterns", PATTERNS)
@pytest.mark.parametrize(
    ("kernel", "memory", "event_driven_cost"),
    [
        ("eager", "full", None),
        ("fused", "full", None),
        ("fused", "full", 0.0),
        ("fused", "compact", 0.0),
        ("fused", "compact", 2.0),
    ],
)
def test_frozen_on_the_cpu_equals_definition(
    kernel: Kernel,
    memory: Memory,
    event_driven_cost: float | None,
    patterns: tuple[str, ...],
    samples: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if event_driven_cost is not None:
        monkeypatch.setattr(event_driven, "relative_cost", lambda *_, **__: event_driven_cost)
    assert_equals_definition(patterns, samples, kernel, memory)


@pytest.mark.long
@pytest.mark.parametrize(
    "patterns", [*PATTERNS[:2], *(pytest.param(one, marks=pytest.mark.slow) for one in PATTERNS[2:])]
)
def test_frozen_with_triton_equals_definition(patterns: tuple[str, ...]) -> None:
    pytest.importorskip("triton")
    assert_equals_definition(patterns, 1, "triton", size=4)


def test_freeze_holds_in_any_mode_until_it_is_changed() -> None:
    model = network("fused")
    model.freeze(["layers.bn0.weight", "layers.bn0.bias", "layers.bn1.bias"])
    model.eval().train()
    assert [model.layers[name].training for name in ("bn0", "bn1")] == [False, True]
    model.freeze([])
    assert model.layers["bn0"].training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_freeze_of_what_is_no_parameter_is_refused() -> None:
    model = network("fused")
    with pytest.raises(ValueError, match=r"no parameter conv0; known: layers\.bn0\.bias"):
        model.freeze(["layers.bn0.bias", "conv0"])
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("gradient_layout", [torch.contiguous_format, torch.channels_last])
def test_frozen_batch_norm_has_the_gradients_of_its_equation_for_one_image_in_any_layout(
    layout: torch.memory_format, gradient_layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    norm, expected = BatchNorm(3, per_step=True).double(), AffineNorm(3, per_step=True).double()
    nn.init.uniform_(norm.running_mean, -0.5, 0.5)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    expected.load_state_dict(norm.state_dict())
    image = torch.randn(1, 3, 4, 5, dtype=torch.float64).contiguous(memory_format=layout)
    gradient = torch.randn(1, 3, 4, 5, dtype=torch.float64).contiguous(memory_format=gradient_layout)
    found = []
    for layer in (norm, expected):
        x = image.clone().requires_grad_()
        layer.eval()(x[None]).backward(gradient[None])
        found.append((x.grad, layer.weight.grad, layer.bias.grad))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)
