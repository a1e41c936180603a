"""The comparison of a kernel with the definition: right kernels pass, every kind of wrong one is refused."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from factories import quick_cases
from tiny_training import CPU, tiny_spec
from torch import Tensor

from plifctl.config.experiment import ExperimentSpec
from plifctl.config.lookup import load_registry
from plifctl.snn.kernels import StageOutput, spiking_stage
from plifctl.snn.layers import BatchNorm
from plifctl.training import kernel_check
from plifctl.training.kernel_check import DifferenceError, check_kernel, stage_cases
from plifctl.training.kernel_trial import describe_failure


def experiment(*overrides: str) -> ExperimentSpec:
    """Batch norm, max and average pooling, layers of features; T = 3."""
    structure = "network.structure=c6k3s1-BN-SN-MPk2s2-c5k3s1-BN-SN-APk2s2-FC20-SN-FC100-SN-APk10s10"
    return load_registry().experiment("mnist-plif", overrides=["T=3", structure, *overrides]).spec


Changes = Callable[[StageOutput, Tensor], StageOutput]


def refused(change: Changes, *overrides: str) -> str:
    """Returns why a kernel is refused whose output is changed."""

    def run_stage(x: Tensor, *arguments: Any) -> StageOutput:
        return change(spiking_stage(x, *arguments[:-1], "eager"), x)

    with pytest.raises(DifferenceError) as error:
        check_kernel(experiment(*overrides), CPU, "fused", run_stage=run_stage)
    assert describe_failure(error.value) == str(error.value)
    return str(error.value)


def test_stage_cases_are_the_stages_of_the_network() -> None:
    first, second, *features = stage_cases(experiment())
    assert (first.pool, first.norm, first.static) == (("max", 2), "per-step", True)
    assert (second.pool, second.norm, second.static) == (("average", 2), "per-step", False)
    assert [case.shape for case in features] == [(20,), (100,)]
    assert str(first) == "batch norm, neurons, max pooling on 6×11×9"


@pytest.mark.parametrize("settings", [(), ("neuron.tau_per=neuron", "neuron.learn_threshold=true")], ids=str)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_check_fused_kernel_passes(settings: tuple[str, ...], precision: str) -> None:
    for graph in (False, True):
        check_kernel(experiment(*settings, f"train.precision={precision}"), CPU, "fused", graph=graph)


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    quick_cases(
        load_registry().experiments(),
        "demo",
        "gesture-plif-avgpool",
        *(f"{name}-plif" for name in ("mnist", "fashion-mnist", "nmnist", "cifar10", "cifar10dvs", "gesture")),
    ),
)
def test_check_fused_kernel_every_experiment_passes(name: str) -> None:
    check_kernel(load_registry().experiment(name, overrides=["T=3"]).spec, CPU, "fused")


@pytest.mark.slow
def test_check_triton_in_its_interpreter_passes() -> None:
    pytest.importorskip("triton")
    check_kernel(tiny_spec(), CPU, "triton", graph=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_check_compiled_definition_passes() -> None:
    try:
        check_kernel(tiny_spec(), CPU, "compiled")
    except RuntimeError as error:
        if "C compiler" not in describe_failure(error):
            raise
        pytest.skip(describe_failure(error))


def test_check_one_spike_too_many_is_refused() -> None:
    def change(output: StageOutput, x: Tensor) -> StageOutput:
        more = torch.zeros_like(output.pooled)
        more.view(-1)[(output.pooled.reshape(-1) == 0).nonzero()[0]] = 1
        return output._replace(pooled=torch.maximum(output.pooled, more))

    assert refused(change).startswith("spikes differ from the definition's: 1 of ")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_check_another_number_of_spikes_is_refused(dtype: torch.dtype) -> None:
    def change(output: StageOutput, x: Tensor) -> StageOutput:
        return output if x.dtype != dtype else output._replace(spike_count=output.spike_count + 1)

    assert re.match(r"the number of spikes is [\d,]+\.0, expected [\d,]+\.0; ", refused(change))


@pytest.mark.parametrize(("name", "shown"), [("running_mean", "running mean"), ("running_var", "running variance")])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_check_other_running_statistics_are_refused(name: str, shown: str, dtype: torch.dtype) -> None:
    def run_stage(x: Tensor, T: int, dynamics: Any, norm: BatchNorm | None, *arguments: Any) -> StageOutput:
        output = spiking_stage(x, T, dynamics, norm, *arguments[:-1], "eager")
        if norm is not None and norm.training and x.dtype == dtype:
            getattr(norm, name).mul_(1.001)
        return output

    with pytest.raises(DifferenceError, match=f"^{shown} differs from the definition's by 1.0e-03") as error:
        check_kernel(experiment(), CPU, "fused", run_stage=run_stage)
    assert str(error.value).endswith(str(dtype).removeprefix("torch."))


def test_check_gradient_wrong_in_float64_only_is_refused() -> None:
    def change(output: StageOutput, x: Tensor) -> StageOutput:
        return output._replace(pooled=output.pooled + 1e-7 * (x - x.detach()).sum())

    assert "gradient of x differs" in refused(change)


def test_check_gradient_wrong_in_float32_only_is_refused() -> None:
    def change(output: StageOutput, x: Tensor) -> StageOutput:
        if x.dtype != torch.float32:
            return output
        return output._replace(pooled=output.pooled + 1e-3 * (x - x.detach()).sum())

    assert refused(change).endswith("float32")


def test_check_gradient_that_is_not_a_number_is_refused() -> None:
    def change(output: StageOutput, x: Tensor) -> StageOutput:
        return output._replace(pooled=output.pooled + ((x - x.detach()).abs() ** 0.5).sum())

    assert "gradient of x differs" in refused(change)


def test_check_spikes_wrong_in_half_precision_only_are_refused() -> None:
    def change(output: StageOutput, x: Tensor) -> StageOutput:
        return output if x.dtype.itemsize > 2 else output._replace(pooled=output.pooled.roll(1))

    assert refused(change, "train.precision=bf16").endswith("bfloat16")


def test_check_spike_at_the_threshold_may_differ_in_float32() -> None:
    """A neuron whose potential is within 1e-5 of the threshold may fire or not, and everything after it follows."""
    spec = experiment("network.structure=SN-FC100-SN-APk10s10")
    original, nudge = kernel_check._StageCheck._input, 1.0

    def threshold(layers: Any) -> float:  # of the input: H = k · x in the first step
        return 1.0 / layers[0].dynamics(torch.zeros(1)).k.item()

    def at_threshold(self: Any) -> Tensor:
        x = original(self)
        if x.dtype == torch.float32:
            x.view(-1)[3] = threshold(self._layers()) * (1 + 2e-6 * nudge)
        return x

    def run_stage(x: Tensor, T: int, dynamics: Any, *arguments: Any) -> StageOutput:
        if x.dtype == torch.float32:
            near = (x.detach() * dynamics.k.detach() - 1).abs() < 1e-4
            x = x * torch.where(near, 1 - 4e-6 * nudge, 1.0)
        return spiking_stage(x, T, dynamics, *arguments[:-1], "eager")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel_check._StageCheck, "_input", at_threshold)
        check_kernel(spec, CPU, "fused", run_stage=run_stage)
        nudge = 20.0
        with pytest.raises(DifferenceError, match="spikes differ"):
            check_kernel(spec, CPU, "fused", run_stage=run_stage)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("Failed to find C compiler. Please specify"), "needs a C compiler"),
        (RuntimeError("InvalidCxxCompiler: No working C++ compiler found"), "needs a C compiler"),
        (RuntimeError("main.c:5: fatal error: Python.h: No such file or directory"), "needs the headers of Python"),
        (ModuleNotFoundError("No module named 'triton'"), "Triton is not installed"),
        (RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable"), "does not admit another"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "out of memory"),
        (ValueError("first line\nsecond line"), "ValueError: first line"),
    ],
    ids=str,
)
def test_describe_failure_names_the_cause_in_one_line(error: Exception, expected: str) -> None:
    found = describe_failure(error)
    assert expected in found
    assert "\n" not in found
