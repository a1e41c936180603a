"""The compiled loops of :mod:`plifctl.snn.kernels.winograd`: tiles of maps to products, and products to tiles."""

from __future__ import annotations

import numba
import numpy as np

from plifctl.jit import compiled, inlined
from plifctl.snn.kernels.registers import VECTOR_BYTES, combine_vectors

TILE = 4
"""Rows and columns of the result that are computed together."""

SPAN = TILE + 2
"""Rows and columns of the maps that they are computed from; SPAN² products of matrices compute all tiles."""

WEIGHT_TRANSFORM = (
    (1, 0, 0),
    (1 / 3, 1 / 3, 1 / 3),
    (-1 / 3, 1 / 3, -1 / 3),
    (-16 / 15, -8 / 15, -4 / 15),
    (1 / 15, -2 / 15, 4 / 15),
    (0, 0, 1),
)
"""G of the algorithm for the points 0, 1, −1, 1/2, −2 and ∞, which of those tried have the least rounding errors."""

_to_product = combine_vectors(
    (
        (1, -1.5, -2, 1.5, 1, 0),
        (0, -1, 0.5, 2.5, 1, 0),
        (0, 1, -2.5, 0.5, 1, 0),
        (0, -2, -1, 2, 1, 0),
        (0, 0.5, -1, -0.5, 1, 0),
        (0, 1, -1.5, -2, 1.5, 1),
    )
)  # Bᵀ
_from_product = combine_vectors(
    (
        (1, 1, 1, 1, 1, 0),
        (0, 1, -1, 0.5, -2, 0),
        (0, 1, 1, 0.25, 4, 0),
        (0, 1, -1, 0.125, -8, 1),
    )
)  # Aᵀ


@inlined
def _copy_column(maps, image, top, column, out):  # type: ignore[no-untyped-def]
    """Copies ``SPAN`` rows of a column from ``top`` on, which need not lie in the image: there they are 0."""
    _, height, _, channels = maps.shape
    for row in range(SPAN):
        for c in range(channels):
            out[row * channels + c] = maps[image, top + row, column, c] if 0 <= top + row < height else 0


@compiled(parallel=True)
def to_products(maps, begin, rows, tile_rows, tile_columns, padding, out):  # type: ignore[no-untyped-def]
    """Transforms the tiles of maps.

    Args:
        maps: ``[M, H, W, C]``; C is a whole number of vectors.
        begin: The first row of tiles; those of all images are counted through.
        rows: Number of rows of tiles.
        tile_rows: Rows of tiles in an image.
        tile_columns: Tiles in a row.
        padding: Zeros around the maps.
        out: Result, ``[SPAN · SPAN, ≥ rows · tile_columns, C]``.
    """
    _, _, width, channels = maps.shape
    columns, lanes = TILE * tile_columns + 2, VECTOR_BYTES // maps.itemsize
    flat, plane = out.reshape(out.size), out.shape[1] * channels
    for item in numba.prange(rows):
        image, y = (begin + item) // tile_rows, (begin + item) % tile_rows
        column = np.empty(SPAN * channels, maps.dtype)
        band = np.zeros(SPAN * columns * channels, maps.dtype)
        for x in range(max(0, padding), min(columns, width + padding)):
            _copy_column(maps, image, TILE * y - padding, x - padding, column)
            for c in range(0, channels, lanes):
                _to_product(column, c, channels, band, x * channels + c, columns * channels)
        for x in range(tile_columns):
            tile = (item * tile_columns + x) * channels
            for i in range(SPAN):
                start = (i * columns + TILE * x) * channels
                for c in range(0, channels, lanes):
                    _to_product(band, start + c, channels, flat, SPAN * i * plane + tile + c, plane)


@compiled(parallel=True)
def from_products(products, begin, rows, tile_rows, tile_columns, out):  # type: ignore[no-untyped-def]
    """Transforms products to tiles of the result.

    Args:
        products: ``[SPAN · SPAN, ≥ rows · tile_columns, C]``; C is a whole number of vectors.
        begin: As in :func:`to_products`.
        rows: As in :func:`to_products`.
        tile_rows: As in :func:`to_products`.
        tile_columns: As in :func:`to_products`.
        out: Result, ``[M, H, W, C]``; tiles may go beyond its last row and column.
    """
    _, height, width, channels = out.shape
    lanes = VECTOR_BYTES // out.itemsize
    flat, plane = products.reshape(products.size), products.shape[1] * channels
    for item in numba.prange(rows):
        image, y = (begin + item) // tile_rows, (begin + item) % tile_rows
        half, row = np.empty(TILE * SPAN * channels, out.dtype), np.empty(TILE * channels, out.dtype)
        for x in range(tile_columns):
            tile = (item * tile_columns + x) * channels
            for j in range(SPAN):
                for c in range(0, channels, lanes):
                    _from_product(flat, j * plane + tile + c, SPAN * plane, half, j * channels + c, SPAN * channels)
            for i in range(min(TILE, height - TILE * y)):
                for c in range(0, channels, lanes):
                    _from_product(half, SPAN * i * channels + c, channels, row, c, channels)
                for j in range(min(TILE, width - TILE * x)):
                    for c in range(channels):
                        out[image, TILE * y + i, TILE * x + j, c] = row[j * channels + c]
