"""Triton's programs become code of NVIDIA GPUs, which needs no GPU, and which the interpreter does not show."""

import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

COMPILE = """
import sys
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from plifctl.snn.kernels import programs

kind, capability = sys.argv[1], int(sys.argv[2])
real, pointer = (tl.float64, "*fp64") if kind == "fp64" else (tl.float32, "*fp32")
WIDE = {"stride_t", "stride_out", "last_t", "last_out"}
SAME = {"x", "out", "grad", "grad_x", "pivot"}
LONG = {"keys": "*i64", "mask": "*fp32", "layer": "i32", "features": "i32", "limit": "i32", "kept": "fp32"}
WHOLE = {"steps", "size", "height", "width", "channels", "window", "stride_m", "stride_k", "last_m", "rows"}

def compiled(program, **constants):
    if "REAL" in program.arg_names:
        constants["REAL"] = real
    types = {}
    for name in program.arg_names:
        types[name] = (
            "constexpr" if name in constants else "i64" if name in WIDE else "i32" if name in WHOLE
            else f"*{kind}" if name in SAME else LONG.get(name, pointer)
        )
    places = {(program.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(program, signature=types, constexprs=places)
    options = {"num_warps": 4, "enable_fp_fusion": False}
    found = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    assert found.asm["cubin"]
    print(program.__name__)

neuron = {"RESET": -0.5, "SOFT": False}
tile = {"K": 4, "P": 4, "CB": 64}
compiled(programs.statistics, P=16, CB=64)
for average in (False, True):
    compiled(programs.forward, **neuron, AVERAGE=average, **tile)
    for sums in (False, True):
        choices = {"DETACH": sums, "SURROGATE": "sigmoid" if average else "arctan", "AVERAGE": average, "SUMS": sums}
        compiled(programs.backward, **neuron, **choices, STATIC=average, OWN_RATES=average, **tile)
ones = {"height": 1, "width": 1, "window": 1, "steps": 1, "size": 1}  # Triton makes constants of them: features, T = 1
compiled(programs.forward, **neuron, AVERAGE=False, K=1, P=16, CB=64, **ones)
for sums in (False, True):
    choices = {"DETACH": False, "SURROGATE": "arctan", "AVERAGE": False, "STATIC": False, "OWN_RATES": False}
    compiled(programs.backward, **neuron, **choices, SUMS=sums, K=1, P=16, CB=64, **ones)
compiled(programs.statistics, P=16, CB=1, rows=1, channels=1)
compiled(programs.dropout, BLOCK=1024)
compiled(programs.dropout, BLOCK=1024, layer=1)
for surrogate in ("rectangular", "triangular"):
    choices = {"DETACH": False, "SURROGATE": surrogate, "AVERAGE": False, "SUMS": False}
    compiled(programs.backward, RESET=0.0, SOFT=True, **choices, STATIC=False, OWN_RATES=False, K=1, P=16, CB=64)
"""


@pytest.mark.parametrize(("kind", "capability"), [("fp32", 90), ("bf16", 80), ("fp64", 90), ("fp16", 75)])
def test_for_a_gpu(kind: str, capability: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    command = [sys.executable, "-c", COMPILE, kind, str(capability)]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr[-3000:]
    assert said.stdout.split().count("backward") == 8
    assert said.stdout.split().count("dropout") == 2
