"""Three passes over bfloat16 parts of the weights have the accuracy of a float32 product; in Triton's interpreter."""

import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

pytest.importorskip("triton", reason="Triton is not installed")

from benchmarks.bf16x3 import convolve_spikes, split_weights


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_split_weights_sum_is_exact(scale: float) -> None:
    weight = scale * torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    parts = split_weights(weight)
    assert parts.dtype == torch.bfloat16
    assert torch.equal(parts.double().sum(0), weight.double())
    assert not torch.equal(parts[:2].double().sum(0), weight.double())


@pytest.mark.long
@pytest.mark.parametrize(
    ("shape", "channels", "size"),
    [((2, 40, 7, 9), 33, 3), ((3, 70, 5, 5), 8, 5), ((5, 300, 1, 1), 150, 1)],
    ids=["3x3", "5x5", "fully connected"],
)
@pytest.mark.parametrize("values", ["spikes", "dropped spikes", "counts"])
def test_convolve_three_parts_is_as_accurate_as_float32(
    shape: tuple[int, ...], channels: int, size: int, values: str
) -> None:
    random = torch.Generator().manual_seed(1)
    x = (torch.rand(shape, generator=random) < 0.2).float()
    x = {"spikes": x, "dropped spikes": 2 * x, "counts": x * torch.randint(1, 200, shape, generator=random)}[values]
    weight = torch.randn(channels, shape[1], size, size, generator=random) / (shape[1] * size**2) ** 0.5
    exact = F.conv2d(x.double(), weight.double(), padding=size // 2)
    errors = [
        float((product.double() - exact).abs().max())
        for product in (
            F.conv2d(x, weight, padding=size // 2),
            convolve_spikes(x.contiguous(memory_format=torch.channels_last), weight),
            convolve_spikes(x, weight, parts=1),
        )
    ]
    float32, three, one = errors
    assert three <= 4 * float32 + 1e-7 * float(exact.abs().max())
    assert one > 100 * three  # a single part is not enough


COMPILE = """
import triton, triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from benchmarks import bf16x3
program = bf16x3._convolve
constants = {"ROWS": 128, "COLUMNS": 128, "DEPTH": 32, "PARTS": 3, "FACTOR": tl.bfloat16}
types = {"x": "*fp32", "weight": "*bf16", "out": "*fp32"}
signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in program.arg_names}
places = {(program.arg_names.index(name),): value for name, value in constants.items()}
binary = triton.compile(ASTSource(program, signature=signature, constexprs=places), target=GPUTarget("cuda", 80, 32))
print(binary.asm["ptx"].count("mma.sync"))
"""


@pytest.mark.slow
@pytest.mark.subprocess
def test_convolve_compiles_to_tensor_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    result = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    assert int(result.stdout) >= 3
