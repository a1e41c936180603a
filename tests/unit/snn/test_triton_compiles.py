"""The Triton programs compile for NVIDIA GPUs; this needs no GPU, and the interpreter does not check it."""

import json
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("triton", reason="Triton is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.subprocess]

COMPILE = """
import json, re, subprocess, sys, tempfile
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from plifctl.snn.kernels import triton_kernels as programs
from plifctl.snn.kernels.triton import MAX_CHANNELS, REGISTERS, TILE

kind, capability = sys.argv[1], int(sys.argv[2])
real, pointer = (tl.float64, "*fp64") if kind == "fp64" else (tl.float32, "*fp32")
TYPES = {"keys": "*i64", "mask": "*fp32", "layer": "i32", "features": "i32", "limit": "i32", "kept": "fp32"}
TYPES |= dict.fromkeys(("stride_t", "stride_out", "last_t", "last_out"), "i64")
TYPES |= dict.fromkeys(("x", "out", "grad", "grad_x", "pivot"), f"*{kind}")
whole = ("steps", "size", "height", "width", "channels", "window", "stride_m", "stride_k", "last_m", "rows")
TYPES |= dict.fromkeys(whole, "i32")
DIVISIBLE = {"channels", "stride_t", "stride_out", "stride_m", "last_t", "last_out", "last_m"}  # by 16, as Triton sees

def compiled(program, **constants):
    if "REAL" in program.arg_names:
        constants["REAL"] = real
    names = program.arg_names
    types = {name: "constexpr" if name in constants else TYPES.get(name, pointer) for name in names}
    aligned = [name for name in names if name not in constants and (types[name][0] == "*" or name in DIVISIBLE)]
    source = ASTSource(
        program,
        signature=types,
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    options = {"num_warps": 4, "enable_fp_fusion": False}
    if program is programs.backward and kind != "fp64":
        options["maxnreg"] = REGISTERS
    binary = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, stack = (int(re.search(rf"{what}:(\\d+)", usage)[1]) for what in ("REG", "STACK"))
    wide = re.search(r"ld\\.global\\S*\\.v[24]|cp\\.async.*, 0x(8|10)\\b", binary.asm["ptx"])  # 8 bytes or more
    found = {"name": program.__name__, "registers": registers, "stack": stack, "wide": wide is not None}
    print(json.dumps({**found, "constants": {name: str(value) for name, value in constants.items()}}))

hard = {"RESET": -0.5, "SOFT": False, "CB": MAX_CHANNELS}
plain = {**hard, "DETACH": True, "SURROGATE": "arctan", "AVERAGE": False, "STATIC": False, "K_PER_NEURON": False}
plain["FIRING_GRADS"] = False
tiles = [{"K": part, "P": TILE // (part * MAX_CHANNELS)} for part in (4, 1)]  # pooled by 2 × 2, not pooled
compiled(programs.statistics, P=TILE // MAX_CHANNELS, CB=MAX_CHANNELS)
for tile in tiles:
    for sums in (False, True):
        compiled(programs.backward, **plain, **tile, SUM_ONLY=sums)
    compiled(programs.forward, **hard, **tile, AVERAGE=False)
if sys.argv[3] == "all":
    compiled(programs.dropout, BLOCK=TILE)
    compiled(programs.dropout, BLOCK=TILE, layer=1)  # Triton makes constants of ones
    compiled(programs.statistics, P=16, CB=1, rows=1, channels=1)
    ones = {"height": 1, "width": 1, "window": 1, "steps": 1, "size": 1}  # features, T = 1
    compiled(programs.forward, **hard, **tiles[1], AVERAGE=False, **ones)
    compiled(programs.forward, **hard, **tiles[0], AVERAGE=True)
    for sums in (False, True):
        compiled(programs.backward, **plain, **tiles[1], SUM_ONLY=sums, **ones)
        choices = {"DETACH": False, "SURROGATE": "sigmoid", "AVERAGE": True, "STATIC": True, "K_PER_NEURON": True}
        compiled(programs.backward, **{**plain, **choices, "FIRING_GRADS": True}, **tiles[0], SUM_ONLY=sums)
    for surrogate in ("rectangular", "triangular"):
        choices = {"SOFT": True, "DETACH": False, "SURROGATE": surrogate, "FIRING_GRADS": True}
        compiled(programs.backward, **{**plain, **choices}, **tiles[1], SUM_ONLY=False)
"""


def compiled(kind: str, capability: int, which: str, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Returns the resources of each program."""
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    command = [sys.executable, "-c", COMPILE, kind, str(capability), which]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize(("kind", "capability"), [("fp32", 90), ("bf16", 80), ("fp64", 90), ("fp16", 75)])
def test_compile_every_variant_for_gpu(kind: str, capability: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = compiled(kind, capability, "all", monkeypatch)
    assert {one["name"] for one in found} == {"statistics", "forward", "backward", "dropout"}
    assert sum(one["name"] == "backward" for one in found) == 10


@pytest.mark.parametrize("kind", ["fp32", "bf16"])
def test_compile_usual_variants_fit_and_load_wide(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs hide the latency of memory from each other: all must be resident, and load 8 bytes or more at once."""
    from plifctl.snn.kernels.triton import PROGRAMS

    for one in compiled(kind, 90, "usual", monkeypatch):
        assert one["registers"] * 128 * PROGRAMS <= 65536, one  # registers of a multiprocessor
        assert one["stack"] <= 16, one  # bytes per thread: no spilled values
        assert one["wide"], one
