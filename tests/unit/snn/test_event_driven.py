"""Event-driven products: equal to the dense ones, values and gradients; chosen by shape and share of active inputs."""

from __future__ import annotations

import copy
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from stages import PLIF
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune

from plifctl.config.choices import Kernel
from plifctl.config.lookup import load_registry
from plifctl.config.network import NetworkSpec
from plifctl.snn.kernels import apply_synapses, event_driven, registers, spiking_stage
from plifctl.snn.layers import BatchNorm, Conv, Linear, Pool
from plifctl.snn.networks import SpikingNetwork
from plifctl.snn.neurons import SpikingLayer

Result = TypeVar("Result")

# images, H, W, C, O, kernel, stride, padding, share of active inputs
CONVOLUTIONS = [
    (3, 5, 7, 4, 6, 3, 1, 1, 0.3),
    (2, 6, 6, 3, 130, 3, 2, 1, 0.2),
    (1, 4, 4, 1, 1, 1, 1, 0, 0.5),
    (2, 9, 5, 16, 72, 5, 1, 2, 0.1),
    (2, 8, 8, 5, 9, 3, 3, 0, 0.4),
    (20, 3, 3, 33, 5, 3, 1, 1, 0.2),
    (1, 40, 2, 2, 8, 7, 1, 3, 0.2),
    (0, 4, 4, 2, 3, 3, 1, 1, 0.5),
    (2, 5, 5, 2, 3, 3, 1, 1, 0.0),
    (2, 5, 5, 2, 3, 3, 1, 1, 1.0),
]
PRODUCTS = [(5, 10, 3, 0.3), (70, 300, 130, 0.1), (1, 7, 64, 1.0), (3, 5, 2, 0.0), (0, 5, 2, 0.5), (300, 40, 600, 0.2)]
BUDGETS = [{}, {"SPREAD_BYTES": 1, "TILE_BYTES": 1}, {"SPREAD_BYTES": 12_000, "TILE_BYTES": 3_000}]
"""Memory for the parts of a gradient: all at once, image by image and row by row, and parts that do not divide all."""


@pytest.fixture(autouse=True)
def everything_is_event_driven(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small layers and every share of active inputs, except where the choice itself is tested."""
    if "chosen" not in request.keywords:
        monkeypatch.setattr(event_driven, "can_be_event_driven", lambda weight: True)
        monkeypatch.setattr(event_driven, "relative_cost", lambda *args, **kwargs: 0.0)
        monkeypatch.setattr(event_driven, "one_pass_cost", lambda *args: 0.0)


def active(*shape: int, density: float, values: str = "spikes", dtype: torch.dtype = torch.float64) -> Tensor:
    """Returns inputs of which a share is not zero."""
    chosen = (torch.rand(shape) < density).to(dtype)
    kinds = {
        "spikes": chosen,
        "dropped": 2 * chosen,
        "counts": chosen * torch.randint(1, 9, shape),
        "pooled": chosen * torch.randint(1, 4, shape) / 4,
        "any": chosen * torch.randn(shape, dtype=dtype),
    }
    return kinds[values]


def results(layer: nn.Module, x: Tensor, kernel: str) -> Iterator[Tensor]:
    """Yields output and gradients of a layer."""
    x = x.clone().requires_grad_()
    layer.zero_grad()
    y = apply_synapses(layer, x, kernel)
    yield y.detach()
    y.sin().sum().backward()
    yield x.grad
    yield from (parameter.grad.clone() for parameter in layer.parameters())


def assert_equal(layer: nn.Module, x: Tensor) -> None:
    for dense, found in zip(results(layer, x, "eager"), results(layer, x, "fused"), strict=True):
        torch.testing.assert_close(found, dense, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_convolution_equals_torch(
    case: tuple[int, ...], bias: bool, budget: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in budget.items():
        monkeypatch.setattr(event_driven, name, size)
    images, height, width, channels, outputs, kernel, stride, padding, density = case
    x = active(images, height, width, channels, density=density, values="any")
    weight = torch.randn(outputs, channels, kernel, kernel, dtype=torch.float64, requires_grad=True)
    added = torch.randn(outputs, dtype=torch.float64) if bias else None
    rows = x.reshape(images * height, width * channels).numpy()
    listed = event_driven.list_active(rows, event_driven.count_active(rows), width, min(channels, 5))
    y = F.conv2d(x.permute(0, 3, 1, 2), weight, added, stride, padding)
    found = event_driven.convolve(listed, weight.detach(), added, x.shape, stride, padding)
    torch.testing.assert_close(found.permute(0, 3, 1, 2), y.detach(), rtol=1e-9, atol=1e-9)
    grad = torch.randn_like(y)
    y.backward(grad)
    by_weight = event_driven.convolution_weight_gradient(
        listed, grad.permute(0, 2, 3, 1), x.shape, kernel, stride, padding
    )
    torch.testing.assert_close(by_weight, weight.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", PRODUCTS, ids=str)
@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_product_equals_torch(case: tuple[int, ...], budget: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in budget.items():
        monkeypatch.setattr(event_driven, name, size)
    samples, features, outputs, density = case
    x = active(samples, features, density=density, values="any")
    weight = torch.randn(outputs, features, dtype=torch.float64, requires_grad=True)
    listed = event_driven.list_active(x.numpy(), event_driven.count_active(x.numpy()), 1, 16)
    y = x @ weight.t()
    torch.testing.assert_close(
        event_driven.multiply(listed, weight.detach(), samples), y.detach(), rtol=1e-9, atol=1e-9
    )
    grad = torch.randn_like(y)
    y.backward(grad)
    by_weight = event_driven.product_weight_gradient(listed, grad, features)
    torch.testing.assert_close(by_weight, weight.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("steps", "samples"), [(3, 2), (1, 2), (1, 1), (3, 0)])
def test_product_with_a_bias_equals_the_definition(steps: int, samples: int) -> None:
    torch.manual_seed(0)
    layer, x = Linear(400, 240, bias=True).double(), active(steps, samples, 400, density=0.1)
    assert_equal(layer, x)
    y = event_driven.apply(layer, x, always=True)
    torch.testing.assert_close(y, F.linear(x, layer.weight, layer.bias), rtol=1e-9, atol=1e-9)
    layer.zero_grad()
    y.sum().backward()
    torch.testing.assert_close(layer.bias.grad, torch.full_like(layer.bias, steps * samples))


@pytest.mark.parametrize("values", ["spikes", "dropped", "counts", "pooled", "any"])
@pytest.mark.parametrize("steps", [1, 3])
def test_layers_of_a_sequence_equal_dense_ones(values: str, steps: int) -> None:
    torch.manual_seed(0)
    maps = active(steps, 2, 5, 7, 6, density=0.2, values=values)
    assert_equal(Conv(5, 9, 3, 1).double(), maps)
    assert_equal(Conv(5, 9, 3, 2, bias=True).double(), maps)
    assert_equal(Linear(50, 33).double(), active(steps, 2, 50, density=0.2, values=values))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e-320])
def test_list_active_has_every_value_but_zero(value: float) -> None:
    rows = np.zeros((2, 70))
    rows[0, [3, 31, 32, 69]] = value
    rows[1, 5] = -0.0
    listed = event_driven.list_active(rows, event_driven.count_active(rows), 7, 4)
    # 7 pixels of 10 channels, in groups of 4: position is pixel · 4 + channel in its group; groups 0, 1, 2
    assert listed.positions.tolist() == [3, 3 * 4 + 1, 3 * 4 + 2, 6 * 4 + 1]
    np.testing.assert_array_equal(listed.values, [value] * 4)
    # 3 is channel 3 of pixel 0; 31 and 32 are channels 1 and 2 of pixel 3; 69 is channel 9 of pixel 6, in group 2
    assert listed.pointers[0].tolist() == [0, 1, 1, 1, 3, 3, 3, *[3] * 7, *[3] * 7, 4]


@pytest.mark.parametrize("pixels", [2**16, 2**16 + 1])
def test_list_active_of_a_long_row_has_its_last_position(pixels: int) -> None:
    rows = np.zeros((1, pixels))
    rows[0, -1] = 1
    listed = event_driven.list_active(rows, event_driven.count_active(rows), pixels, 1)
    assert listed.positions.tolist() == [pixels - 1]


def with_threads(threads: int, compute: Callable[[], Result]) -> Result:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return compute()
    finally:
        torch.set_num_threads(before)


def test_results_are_the_same_bits_for_any_number_of_threads() -> None:
    torch.manual_seed(0)
    layers = (
        (Conv(40, 70, 3, 1), active(4, 3, 40, 9, 9, density=0.2, dtype=torch.float32)),
        (Linear(900, 700, bias=True), active(4, 3, 900, density=0.2, dtype=torch.float32)),
    )
    for layer, x in layers:
        found = []
        for threads in (1, 2):
            # the gradient of the input is torch's own
            output, _, *weights = with_threads(threads, lambda layer=layer, x=x: list(results(layer, x, "fused")))
            found.append([output, *weights])
        assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


def stage_in_evaluation(
    case: tuple[object, ...], kernel: str, dtype: torch.dtype, x: Tensor
) -> tuple[Tensor, Tensor, int]:
    """Returns pooled spikes, their number and the largest possible."""
    _, outputs, size, stride, norm, pool, tau_per, reset, _ = case
    torch.manual_seed(3)
    layer = Conv(x.shape[2], outputs, size, stride, bias=True).to(dtype)
    shape = layer(x)[0, 0].shape
    neuron = PLIF.model_copy(update={"tau_per": tau_per, "reset": reset, "v_reset": -0.1, "v_threshold": 0.3})
    spiking = SpikingLayer(neuron, shape).to(dtype)
    spiking.a.data += 0.5 * torch.randn_like(spiking.a)
    batch_norm = None if norm is None else BatchNorm(outputs, per_step=norm == "per-step").to(dtype).eval()
    if batch_norm is not None:
        for tensor in (batch_norm.weight, batch_norm.bias, batch_norm.running_mean, batch_norm.running_var):
            tensor.data += 0.3 * torch.rand_like(tensor)
    pooling = None if pool is None else Pool(*pool, pool[1])
    with torch.no_grad():
        return spiking_stage(x, len(x), spiking.dynamics(x), batch_norm, pooling, kernel, layer)


# channels, outputs, kernel, stride, batch norm, pooling, τ per, reset, shape of the input
STAGES = [
    (2, 70, 3, 1, "per-step", ("max", 2), "layer", "hard", (3, 2, 2, 8, 8)),
    (40, 64, 3, 1, None, ("max", 2), "channel", "soft", (4, 1, 40, 9, 7)),
    (5, 9, 5, 2, "over-time", ("average", 3), "neuron", "hard", (2, 3, 5, 17, 13)),
    (33, 130, 3, 1, None, None, "neuron", "soft", (1, 2, 33, 5, 6)),
    (3, 8, 1, 1, "over-time", ("max", 4), "layer", "hard", (5, 1, 3, 6, 6)),
    (4, 4, 3, 3, None, ("average", 2), "layer", "hard", (2, 20, 4, 40, 40)),
    (2, 8, 3, 1, None, ("max", 5), "layer", "hard", (2, 1, 2, 5, 5)),
]


@pytest.mark.parametrize("case", STAGES, ids=str)
@pytest.mark.parametrize("density", [0.0, 0.3])
def test_stage_in_evaluation_is_one_pass_and_equals_the_definition(
    case: tuple[object, ...], density: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1)
    x = active(*case[-1], density=density, values="counts")
    expected = stage_in_evaluation(case, "eager", torch.float64, x)
    monkeypatch.setattr("plifctl.snn.kernels.apply_synapses", None)
    found = stage_in_evaluation(case, "fused", torch.float64, x)
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=1e-12)
    assert found[1:] == expected[1:]
    assert density == 0 or 0 < float(found[1]) < found[2]


def test_stage_in_evaluation_has_the_bits_of_its_parts_for_any_number_of_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(1)
    case = STAGES[1]
    x = active(*case[-1], density=0.2, dtype=torch.float32)
    one_pass = stage_in_evaluation(case, "fused", torch.float32, x)
    single = with_threads(1, lambda: stage_in_evaluation(case, "fused", torch.float32, x))
    monkeypatch.setattr(event_driven, "evaluate_stage", lambda *args: None)
    parts = stage_in_evaluation(case, "fused", torch.float32, x)
    for other in (single, parts):
        assert torch.equal(one_pass[0], other[0])
        assert one_pass[1:] == other[1:]


def test_stage_with_gradients_is_not_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_driven, "evaluate_stage", None)
    layer, spiking = Conv(2, 4, 3, 1), SpikingLayer(PLIF, (4, 6, 6))
    x = active(3, 2, 2, 6, 6, density=0.5, dtype=torch.float32)
    spiking_stage(x, 3, spiking.dynamics(x), synapses=layer).pooled.sum().backward()
    assert layer.weight.grad is not None
    training = BatchNorm(4, per_step=True)
    with torch.no_grad():
        spiking_stage(x, 3, spiking.dynamics(x), training, synapses=layer)  # statistics are taken of this batch
        spiking_stage(x[:1], 3, spiking.dynamics(x), synapses=layer)  # an image is convolved once


def let_it_fire(model: SpikingNetwork) -> None:
    """Raises the weights of fully connected layers; with initial ones, their neurons hardly fire."""
    with torch.no_grad():
        for layer in model.layers.values():
            if isinstance(layer, nn.Linear):
                layer.weight *= 30


def test_network_in_training_equals_the_definition() -> None:
    spec = load_registry().experiment("demo").spec
    torch.manual_seed(0)
    models = [
        SpikingNetwork(spec.network, spec.neuron, (2, 128, 128), 11, kernel).double() for kernel in ("eager", "fused")
    ]
    let_it_fire(models[0])
    models[1].load_state_dict(models[0].state_dict())
    x = torch.poisson(torch.full((2, 4, 2, 128, 128), 0.2, dtype=torch.float64))
    votes = [model(x, keys=torch.arange(2)) for model in models]
    torch.testing.assert_close(votes[1], votes[0], rtol=0, atol=1e-9)
    assert votes[0].unique().numel() > 5
    for vote in votes:
        vote.square().sum().backward()
    for (name, one), two in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(two.grad, one.grad, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize(("dtype", "equal_votes"), [(torch.float64, 1.0), (torch.float32, 0.99)])
def test_network_in_evaluation_votes_as_the_definition(dtype: torch.dtype, equal_votes: float) -> None:
    spec = load_registry().experiment("demo").spec
    torch.manual_seed(0)
    model = SpikingNetwork(spec.network, spec.neuron, (2, 128, 128), 11).to(dtype)
    let_it_fire(model)
    x = torch.poisson(torch.full((3, 4, 2, 128, 128), 0.2, dtype=dtype))
    with torch.no_grad():
        for layer in model.layers.values():
            if isinstance(layer, BatchNorm):
                layer.momentum = 1.0  # the statistics of this batch; with initial ones nothing fires
        model(x, keys=torch.arange(3))
        votes = {}
        for kernel in ("eager", "fused"):
            model.eval().kernel = kernel
            votes[kernel] = model(x)
    assert votes["eager"].unique().numel() > 5
    same = torch.isclose(votes["eager"], votes["fused"], rtol=0, atol=1e-6)
    assert same.float().mean() >= equal_votes


def network_with_few_inputs(kernel: Kernel) -> SpikingNetwork:
    """A network whose first stage is computed together with its convolution in training."""
    structure = "c16k3s1-BN-SN-MPk2s2-c32k3s1-BN-SN-MPk2s2-FC20-SN-APk10s10"
    spec = NetworkSpec(name="test", structure=structure, dropout=0.0, batch_norm="per-step")
    torch.manual_seed(0)
    model = SpikingNetwork(spec, PLIF, (2, 8, 8), 2, kernel).double()
    let_it_fire(model)
    return model


class TestHooks:
    @pytest.mark.parametrize("training", [True, False])
    def test_hooks_of_convolutions_and_fully_connected_layers_are_called(self, training: bool) -> None:
        model, called = network_with_few_inputs("fused").train(training), list[str]()
        for name in ("conv0", "conv1", "fc0"):
            model.layers[name].register_forward_hook(lambda *_, name=name: called.append(name))
        x = torch.poisson(torch.full((2, 4, 2, 8, 8), 0.2, dtype=torch.float64))
        with torch.set_grad_enabled(training):
            model(x, keys=torch.arange(2))
        assert called == ["conv0", "conv1", "fc0"]

    def test_pruned_convolutions_learn_as_in_the_definition(self) -> None:
        x = torch.poisson(torch.full((2, 4, 2, 8, 8), 0.2, dtype=torch.float64))
        found = []
        for kernel in ("eager", "fused"):
            model = network_with_few_inputs(kernel)  # type: ignore[arg-type]
            for name in ("conv0", "conv1"):
                prune.l1_unstructured(model.layers[name], "weight", 0.5)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for _ in range(2):
                optimizer.zero_grad()
                (model(x, keys=torch.arange(2)) - 1).square().sum().backward()
                optimizer.step()
            found.append([model.layers["conv0"].weight_orig.detach(), *model.state_dict().values()])
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-12)


class TestLinear:
    def test_weights_are_those_of_torch_and_input_major(self) -> None:
        torch.manual_seed(0)
        ours = Linear(5, 3)
        torch.manual_seed(0)
        theirs = nn.Linear(5, 3, bias=False)
        assert torch.equal(ours.weight, theirs.weight)
        for layer in (ours, copy.deepcopy(ours), copy.deepcopy(ours).double()):
            layer.load_state_dict(theirs.state_dict())
            assert layer.weight.t().is_contiguous()
            layer(torch.randn(2, 5, dtype=layer.weight.dtype)).sum().backward()
            assert layer.weight.grad.shape == (3, 5)


@pytest.mark.chosen
class TestChoice:
    def test_small_layers_are_dense(self) -> None:
        assert not event_driven.can_be_event_driven(torch.empty(128, 2, 3, 3))
        assert event_driven.can_be_event_driven(torch.empty(128, 128, 3, 3))
        assert not event_driven.can_be_event_driven(torch.empty(100, 2048))
        assert event_driven.can_be_event_driven(torch.empty(2048, 8192))

    @pytest.mark.parametrize(("density", "expected"), [(0.05, True), (0.6, False)])
    def test_layer_with_few_active_inputs_is_event_driven(
        self, density: float, expected: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        called = []
        convolve = event_driven.convolve
        monkeypatch.setattr(event_driven, "convolve", lambda *args: called.append(1) or convolve(*args))
        layer = Conv(32, 32, 3, 1)
        x = active(1, 2, 32, 6, 6, density=density, dtype=torch.float32)
        torch.testing.assert_close(apply_synapses(layer, x, "auto"), layer(x))
        assert bool(called) == expected

    @pytest.mark.parametrize("kernel", ["eager", "triton"])
    def test_other_kernels_are_dense(self, kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(event_driven, "convolution", None)
        apply_synapses(Conv(32, 32, 3, 1), torch.zeros(1, 1, 32, 4, 4), kernel)

    def test_half_precision_is_dense(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(event_driven, "convolution", None)
        with torch.autocast("cpu", torch.bfloat16):
            y = apply_synapses(Conv(32, 32, 3, 1), torch.zeros(1, 1, 32, 4, 4), "auto")
        assert y.dtype == torch.bfloat16


@pytest.mark.parametrize("vectors", [8, 4, 2, 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sum_rows_adds_rows_to_what_is_there(vectors: int, dtype: type) -> None:
    lanes = vectors * registers.VECTOR_BYTES // np.dtype(dtype).itemsize
    random = np.random.default_rng(0)
    rows, out = random.integers(0, 9, (6, lanes + 3)).astype(dtype), np.ones(lanes + 2, dtype)
    index, value = np.array([9, 4, 0, 4], np.uint32), np.array([9, 2, 1, 3], dtype)
    flat = rows.reshape(-1)
    registers.sum_rows(flat, 1, lanes + 3, index, value, 1, 4, out, 1, vectors)
    expected = 1 + 5 * rows[4, 1 : lanes + 1] + rows[0, 1 : lanes + 1]
    assert out.tolist() == [1, *expected, 1]
    registers.sum_rows(flat, 1, lanes + 3, index, value, 2, 2, out, 1, vectors)
    assert out.tolist() == [1, *expected, 1]


COMPILE = """
import sys
import numpy as np
from numba import njit
from plifctl.snn.kernels import registers

@njit(nogil=True)
def add(rows, index, value, out):
    registers.sum_rows(rows, 0, 16, index, value, 0, len(index), out, 0, 8)

add.compile("void(f4[::1], u4[::1], f4[::1], f4[::1])")
sys.stdout.write("\\n".join(add.inspect_asm().values()))
"""


@pytest.mark.subprocess
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="processors of x86")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("processor", "features", "instruction"),
    [
        ("skylake-avx512", "+avx512f,+avx512vl,+avx2,+avx,+fma", r"vfmadd\w+ps\s.*%zmm"),
        ("haswell", "+avx2,+avx,+fma", r"vfmadd\w+ps\s.*%ymm"),
        ("nehalem", "+sse4.2", r"mulps\s.*%xmm"),
    ],
)
def test_sum_rows_is_compiled_to_the_widest_vectors_of_a_processor(
    processor: str, features: str, instruction: str, tmp_path: Path
) -> None:
    options = {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(tmp_path)}
    compiled = subprocess.run(
        [sys.executable, "-c", COMPILE], env={**os.environ, **options}, capture_output=True, text=True, check=True
    )
    assert re.search(instruction, compiled.stdout)
    assert "fmaf" not in compiled.stdout  # a function call for each value


@pytest.mark.subprocess
@pytest.mark.slow
def test_vectors_are_those_that_numba_uses() -> None:
    options = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_CPU_")}
    command = [sys.executable, "-c", "from plifctl.snn.kernels.registers import VECTOR_BYTES as b; print(b)"]
    found = subprocess.run(
        command, env={**options, "NUMBA_ENABLE_AVX": "0"}, capture_output=True, text=True, check=True
    )
    assert int(found.stdout) == 16
