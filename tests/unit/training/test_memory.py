"""Memory of a training step: compact holds a part of full."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from tiny_training import CPU, MemoryRecorder, same_weights, tiny_spec, tiny_trainer

from plifctl.errors import Interrupted, UsageError
from plifctl.training.trainer import check_memory

_STEPS = """
import sys
from pathlib import Path

import torch

from plifctl.config.network import NetworkSpec, NeuronSpec
from plifctl.snn.keyed_random import hash_keys
from plifctl.snn.networks import SpikingNetwork
from plifctl.training.process import keep_freed_memory

def held(field):
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(field + ":"))

keep_freed_memory()
torch.set_num_threads(1)
torch.manual_seed(2020)
structure = "{c128k3s1-BN-SN-MPk2s2}*3-FC20-SN-APk10s10"
network = NetworkSpec(name="test", structure=structure, dropout=0.0, batch_norm="per-step")
neuron = NeuronSpec(
    kind="plif", tau_0=2.0, v_threshold=1.0, v_reset=0.0, surrogate="arctan", detach_reset=True
)

def step(samples, T):
    x = torch.poisson(torch.full((samples, T, 2, 96, 96), 0.05))
    model(x, keys=hash_keys(torch.arange(samples))).square().mean().backward()

model = SpikingNetwork(network, neuron, (2, 96, 96), 2, "fused", sys.argv[1]).train()
step(1, 1)  # loads what is compiled
before = held("VmHWM")
step(2, 24)  # many times what differs from process to process, some 30 MB
print(held("VmHWM") - before)
"""


def _peak(memory: str) -> int:
    """Returns what a step in a process of its own needs at most, bytes."""
    result = subprocess.run([sys.executable, "-c", _STEPS, memory], capture_output=True, text=True, check=True)
    return int(result.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
def test_step_in_compact_memory_holds_half_of_full() -> None:
    output_of_first_layer = 2 * 24 * 96 * 96 * 128 * 4
    full, compact = _peak("full"), _peak("compact")
    assert full > 2 * output_of_first_layer  # and as much for its gradient: what is measured is a step
    assert compact < full / 2


def test_training_resumed_with_the_other_memory_has_the_bits_of_one_without_a_stop() -> None:
    whole, first = MemoryRecorder(), MemoryRecorder(stop_after=5)
    tiny_trainer(whole, tiny_spec("train.memory=full")).run()
    with pytest.raises(Interrupted):
        tiny_trainer(first, tiny_spec("train.memory=compact")).run()
    second = MemoryRecorder(saved=dict(first.saved))
    again = tiny_trainer(second, tiny_spec("train.memory=full"))
    again.restore(first.saved["last"])
    again.run()
    assert same_weights(second.saved["last"], whole.saved["last"])


@pytest.mark.parametrize(
    ("device", "kernel", "precision", "message"),
    [
        ("cuda", "auto", "fp32", "needs the fused kernel on a CPU; the kernel is auto, the device cuda"),
        ("cpu", "eager", "fp32", "the kernel is eager"),
        ("cpu", "auto", "bf16", "needs train.precision fp32, not bf16"),
    ],
)
def test_compact_memory_that_is_not_supported_names_the_reason(
    device: str, kernel: str, precision: str, message: str
) -> None:
    train = tiny_spec("train.memory=compact", f"train.precision={precision}").train
    with pytest.raises(UsageError, match=message) as error:
        check_memory(train, torch.device(device), kernel)  # type: ignore[arg-type]
    assert error.value.hint == "--set train.memory=full"


def test_full_memory_is_supported_everywhere() -> None:
    check_memory(tiny_spec().train, torch.device("cuda"), "triton")
    check_memory(tiny_spec("train.memory=compact").train, CPU, "fused")
