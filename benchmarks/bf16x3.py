"""Products of spikes with float32 weights on bfloat16 tensor cores: three passes that give float32 results.

0 and 1 are exact in bfloat16, and so are small counts. A float32 weight has 24 bits of mantissa: it is the exact sum of
three bfloat16 numbers of 8 bits each. A product of two bfloat16 numbers is exact in float32, and tensor cores add in
float32. So three passes over the parts of the weights, added up in one accumulator, have the error of a float32
product, at a third of the speed of bfloat16. An experiment: plifctl does not use it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from benchmarks.measure import Benchmark, Figure, Setting, below, faster, interleaved

PARTS = 3
_ROWS, _COLUMNS, _DEPTH = 128, 128, 32
"""Tile of a program: rows of the input, output channels, and input channels that are multiplied at once."""


def split_weights(weight: Tensor) -> Tensor:
    """Returns three bfloat16 tensors whose sum is ``weight``, float32 of any shape: ``[3, ...]``.

    The sum is exact unless a part is smaller than the smallest bfloat16 number.
    """
    parts, rest = [], weight.float()
    for _ in range(PARTS):
        part = rest.bfloat16()
        parts.append(part)
        rest = rest - part.float()
    return torch.stack(parts)


@triton.jit
def _convolve(
    x, weight, out,
    rows, height, width, channels_in, channels, size,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PARTS: tl.constexpr, FACTOR: tl.constexpr,
):  # fmt: skip
    """Convolves ``x [rows, C]`` (channels-last pixels) with ``weight [parts, taps, C, K]`` into ``out [rows, K]``.

    The convolution is padded and has stride 1; ``size`` 1 is a matrix product. FACTOR is the type of the factors.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    y, x_position = row // width % height, row % width
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for tap in range(size * size):
        dy, dx = tap // size - size // 2, tap % size - size // 2
        inside = (row < rows) & (y + dy >= 0) & (y + dy < height) & (x_position + dx >= 0) & (x_position + dx < width)
        source = row + dy * width + dx
        for first in range(0, channels_in, DEPTH):
            channel = first + tl.arange(0, DEPTH)
            mask = inside[:, None] & (channel < channels_in)[None, :]
            value = tl.load(x + source[:, None].to(tl.int64) * channels_in + channel[None, :], mask=mask, other=0)
            value = value.to(FACTOR)
            mask = (channel < channels_in)[:, None] & (column < channels)[None, :]
            for part in tl.static_range(PARTS):
                place = ((part * size * size + tap) * channels_in + channel[:, None]) * channels + column[None, :]
                total += tl.dot(value, tl.load(weight + place, mask=mask, other=0).to(FACTOR))
    mask = (row < rows)[:, None] & (column < channels)[None, :]
    tl.store(out + row[:, None].to(tl.int64) * channels + column[None, :], total, mask=mask)


def convolve_spikes(x: Tensor, weight: Tensor, parts: int = PARTS) -> Tensor:
    """Returns the convolution of ``x`` with float32 weights, padded by half the kernel, at stride 1.

    Args:
        x: Values that bfloat16 represents, ``[N, C, H, W]`` in channels-last layout.
        weight: float32 ``[K, C, size, size]``.
        parts: Parts of the weights to use; 1 is a product in bfloat16 with float32 sums.

    Returns:
        float32 ``[N, K, H, W]`` in channels-last layout.
    """
    samples, channels_in, height, width = x.shape
    channels, _, size, _ = weight.shape
    split = split_weights(weight.permute(2, 3, 1, 0)).contiguous()
    pixels = x.permute(0, 2, 3, 1).contiguous()
    out = torch.empty(samples, height, width, channels, device=x.device)
    rows = samples * height * width
    grid = (triton.cdiv(rows, _ROWS), triton.cdiv(channels, _COLUMNS))
    _convolve[grid](
        *(pixels, split, out, rows, height, width, channels_in, channels, size),
        ROWS=_ROWS,
        COLUMNS=_COLUMNS,
        DEPTH=_DEPTH,
        PARTS=parts,
        # Triton's interpreter does not multiply bfloat16; in float32 the products are the same
        FACTOR=tl.bfloat16 if x.is_cuda else tl.float32,
    )
    return out.permute(0, 3, 1, 2)


def products(device: torch.device) -> Benchmark:
    """Returns a benchmark of a convolution 128 → 128 and a fully connected layer, beside torch's float32 and TF32."""

    def measured(setting: Setting) -> Iterator[Figure]:
        if device.type != "cuda":
            print("left out: bf16x3 needs tensor cores; its accuracy is tested on the CPU", file=sys.stderr)
            return
        for title, shape, channels, size in (
            ("convolution 3×3, 128 → 128, 14×14, 128 frames", (128, 128, 14, 14), 128, 3),
            ("convolution 3×3, 128 → 128, 64×64, 80 frames", (80, 128, 64, 64), 128, 3),
            ("fully connected, 6,272 → 2,048, 128 rows", (128, 6272, 1, 1), 2048, 1),
        ):
            yield from _compared(setting, title, shape, channels, size)

    def _compared(setting: Setting, title: str, shape: tuple[int, ...], channels: int, size: int) -> Iterator[Figure]:
        random = torch.Generator().manual_seed(0)
        x = (torch.rand(shape, generator=random) < 0.15).float().to(device, memory_format=torch.channels_last)
        weight = torch.randn(channels, shape[1], size, size, generator=random) / (shape[1] * size * size) ** 0.5
        weight = weight.to(device, memory_format=torch.channels_last)
        exact = F.conv2d(x.double(), weight.double(), padding=size // 2)
        ways: dict[str, Callable[[], Tensor]] = {
            "three bf16 passes": lambda: convolve_spikes(x, weight),
            "float32": lambda: _with_precision("ieee", x, weight, size),
            "TF32": lambda: _with_precision("tf32", x, weight, size),
        }
        for name, way in ways.items():
            error = float((way().double() - exact).abs().max() / exact.abs().max())
            target = 2e-6 if name == "three bf16 passes" else None
            yield below(f"largest error, {name}, {title}", "", [error], target, "of the largest output")
        for name in ("float32", "TF32"):
            found = interleaved(_waiting(ways["three bf16 passes"]), _waiting(ways[name]), setting.pairs)
            note = "splitting the weights is included"
            yield faster(f"three bf16 passes, {title}", *found, f"torch in {name}", None, note)

    return measured


def _with_precision(precision: str, x: Tensor, weight: Tensor, size: int) -> Tensor:
    convolution = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before, convolution.fp32_precision = convolution.fp32_precision, precision
    try:
        return F.conv2d(x, weight, padding=size // 2)
    finally:
        convolution.fp32_precision = before


def _waiting(work: Callable[[], Tensor]) -> Callable[[], None]:
    def waited() -> None:
        for _ in range(10):
            work()
        torch.cuda.synchronize()

    return waited
