"""Resize pictures of any size to a network's squares with exportable operations, pixel for pixel as Pillow does.

Pillow's bilinear filter is a triangle that widens with the factor when it shrinks. It is separable: a picture is
multiplied by one matrix for its columns and by one for its rows, whose weights are whole numbers of 22 bits, and after
each the values are rounded. The matrices depend on the picture's size alone and are computed in the graph, in double
precision, so that sums of whole numbers are exact. `data.framing.frame` decides the same for pictures in Python.
Axes: N pictures, C channels, H rows, W columns, L pixels along either of them, S side of the square.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from reslab.recipe.shapes import Resizing

ONE = 2.0**22  # Pillow's weight of 1


class _Axis(NamedTuple):
    """The weights of an axis, and by how many pixels the picture shrinks along it."""

    weights: Tensor
    lost: Tensor


def resize_any(pictures: Tensor, *, side: int, resize: Resizing) -> Tensor:
    """Resize pictures (N, C, H, W) uint8 to float32 (N, C, S, S)."""
    values, half = pictures.double(), torch.tensor(0.5, dtype=torch.float64)
    height, width = ((torch.arange(length)[-1] + 1).double() for length in pictures.shape[2:])
    in_rows, in_columns = (torch.arange(length) + half for length in pictures.shape[2:])
    square = torch.arange(side)
    rows = _weigh(in_rows[None], square[:, None], height, width, side=side, resize=resize)
    # Made as (L, S), since not every runtime has a transposed product in double precision.
    columns = _weigh(in_columns[:, None], square[None], width, height, side=side, resize=resize)
    columns_first = _round(rows.weights @ _round(values @ columns.weights))
    rows_first = _round(_round(rows.weights @ values) @ columns.weights)
    # Pillow 13's choice; the earlier ones always take the columns first, which differs by 1 here and there.
    is_tall = (rows.lost > 0) & (rows.lost > 2 * columns.lost)
    return torch.where(is_tall, rows_first, columns_first).float()


def _weigh(places: Tensor, square: Tensor, length: Tensor, other: Tensor, *, side: int, resize: Resizing) -> _Axis:
    """Weigh the pixels of an axis, whose centres lie at `places`, for each pixel of the square.

    `places` and `square` broadcast to the shape of the result, as (1, L) and (S, 1) or as (L, 1) and (1, S); the
    picture has `length` pixels along the axis and `other` across it.
    """
    start, taken = torch.zeros_like(length), length
    inner, corner = torch.full_like(length, side), torch.zeros_like(length)
    match resize:
        case "squeeze":
            pass
        case "pad":
            inner = (side * length / torch.maximum(length, other)).round().clamp(min=1)
            corner = ((side - inner) / 2).floor()
        case "crop":
            taken = torch.minimum(length, other)
            start = (length - taken) / 2
    shown = square - corner
    step = taken / inner
    distance = (places - (start + (shown + 0.5) * step)) / step.clamp(min=1)
    triangle = (1 - distance.abs()).clamp(min=0)
    total = triangle.sum(dim=0 if len(square) == 1 else 1, keepdim=True).clamp(min=1e-6)
    weights = (ONE * triangle / total + 0.5).floor()
    # Black outside of the picture.
    return _Axis(weights * ((shown >= 0) & (shown < inner)).double(), length - inner)


def _round(sums: Tensor) -> Tensor:
    return (sums / ONE + 0.5).floor().clamp(max=255)
