"""The gradient of the input by Winograd's algorithm: equal to torch's, and chosen by shape alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from plifctl.jit import compiled
from plifctl.snn.kernels import event_driven, winograd
from plifctl.snn.kernels.registers import VECTOR_BYTES, combine_vectors

# images, H and W of the input, channels of output and input, padding
SHAPES = [
    (1, 1, 1, 16, 16, 1),
    (3, 4, 4, 16, 32, 1),
    (2, 17, 5, 48, 16, 1),
    (5, 6, 9, 16, 16, 0),
    (2, 3, 3, 16, 16, 0),
    (2, 7, 8, 32, 16, 2),
]


def tensors(
    images: int, height: int, width: int, outputs: int, channels: int, padding: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Returns a gradient of the output, ``[M, H', W', O]``, and weights."""
    generator = torch.Generator().manual_seed(5)
    shape = (images, height + 2 * padding - 2, width + 2 * padding - 2, outputs)
    grad = torch.randn(shape, dtype=torch.float64, generator=generator)
    grad *= torch.randn(shape, dtype=torch.float64, generator=generator).exp()  # of many magnitudes
    return grad.to(dtype), torch.randn(outputs, channels, 3, 3, dtype=torch.float64, generator=generator).to(dtype)


def definition(grad: Tensor, weight: Tensor, padding: int) -> Tensor:
    maps = F.conv_transpose2d(grad.double().permute(0, 3, 1, 2), weight.double(), None, 1, padding)
    return maps.permute(0, 2, 3, 1)


@pytest.mark.parametrize("tiles", [1, 3, 128])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_equals_the_definition(
    shape: tuple[int, int, int, int, int, int], tiles: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd, "TILES", tiles)
    monkeypatch.setattr(winograd, "MIN_ITEMS", 1)
    _, height, width, _, _, padding = shape
    grad, weight = tensors(*shape, torch.float64)
    expected = definition(grad, weight, padding)
    found = winograd.input_gradient(grad, weight, (height, width), padding)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 * float(expected.abs().max()))
    grad, weight = tensors(*shape, torch.float32)
    expected = definition(grad, weight, padding)
    found = winograd.input_gradient(grad, weight, (height, width), padding)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_what_an_earlier_part_left_in_memory_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "TILES", 28)  # 36 rows of 4 tiles: five parts of 7 rows, and one row
    monkeypatch.setattr(winograd, "MIN_ITEMS", 1)
    grad, weight = tensors(9, 16, 16, 16, 16, 1, torch.float64)
    grad[:8] *= 1e30
    whole = winograd.input_gradient(grad, weight, (16, 16), 1)
    whole[:8] *= 1e-30
    grad[:8] *= 1e-30
    for image in range(9):
        one = winograd.input_gradient(grad[image : image + 1], weight, (16, 16), 1)
        torch.testing.assert_close(one[0], whole[image], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "size", "stride", "images", "expected"),
    [
        ((128, 128, 3, 3), (14, 14), 1, 128, True),  # Fashion-MNIST
        ((128, 128, 3, 3), (17, 17), 1, 160, True),  # N-MNIST
        ((128, 128, 3, 3), (64, 64), 1, 20, True),  # DVS128 Gesture, one sample
        ((128, 128, 3, 3), (5, 5), 1, 160, False),  # tiles of 4×4 compute 64 of 25 values
        ((128, 128, 3, 3), (14, 14), 1, 1, False),  # transforms of the weights take longer than the sums
        ((128, 128, 3, 3), (14, 14), 1, 0, False),
        ((128, 128, 3, 3), (14, 14), 2, 128, False),
        ((128, 128, 5, 5), (14, 14), 1, 128, False),
        ((128, 127, 3, 3), (14, 14), 1, 128, False),  # no whole number of vectors
        ((127, 128, 3, 3), (14, 14), 1, 128, False),
        ((16, 16, 3, 3), (32, 32), 1, 128, False),  # transforms take longer than the sums
    ],
)
def test_pays_for_large_maps_of_many_channels(
    shape: tuple[int, ...], size: tuple[int, int], stride: int, images: int, expected: bool
) -> None:
    assert winograd.pays(torch.zeros(shape), size, stride, images) is expected


def test_event_driven_layer_takes_it_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    grad, weight = tensors(3, 8, 9, 16, 32, 1, torch.float64)
    found: dict[bool, Tensor] = {}
    taken: list[bool] = []
    original = winograd.input_gradient
    monkeypatch.setattr(winograd, "input_gradient", lambda *arguments: taken.append(pays) or original(*arguments))
    for pays in (True, False):
        monkeypatch.setattr(winograd, "pays", lambda *_, pays=pays: pays)
        found[pays] = event_driven.input_gradient(grad, weight, (8, 9), 1, 1)
    assert taken == [True]
    torch.testing.assert_close(found[True], found[False], rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_combine_vectors_multiplies_a_matrix_by_vectors_that_may_overlap(dtype: type[np.floating]) -> None:
    matrix = ((1, 0, -1), (0, 1, 2.5), (-3, 1, 0), (0, 0, 1))
    combine = combine_vectors(matrix)

    @compiled()
    def apply(source, at, step, out, to, out_step):  # type: ignore[no-untyped-def]
        combine(source, at, step, out, to, out_step)

    lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
    source = np.random.default_rng(1).normal(size=100).astype(dtype)
    at, step = 3, lanes + 1
    expected = np.array(matrix) @ np.array([source[at + i * step :][:lanes] for i in range(3)])
    changed = source.copy()
    apply(changed, at, step, changed, 1, lanes + 2)
    for row, values in enumerate(expected):
        found = changed[1 + row * (lanes + 2) :][:lanes]
        np.testing.assert_allclose(found, values, rtol=0, atol=1e-6 if dtype == np.float32 else 1e-12)


def test_combine_vectors_needs_a_factor_1_in_each_row() -> None:
    with pytest.raises(ValueError, match="no factor 1"):
        combine_vectors(((1, 0), (0, 2)))
