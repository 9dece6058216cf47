"""Weights in a quarter of the space: 8-bit integers, with a scale for each output channel.

Axes: the first is the output channel.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_SCALE: Final = ".int8_scale"  # suffix to the name of the scaled tensor
_FEWEST: Final = 10_000  # elements of the smallest tensor worth compressing
_LARGEST: Final = 127


def compress(tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Round the large float32 tensors to 8 bits; compressing expanded tensors again yields the same bytes."""
    found: dict[str, NDArray[Any]] = {}
    for name, value in tensors.items():
        if value.dtype != np.float32 or value.ndim < 2 or value.size < _FEWEST:
            found[name] = value
            continue
        scale = np.abs(value).max(axis=tuple(range(1, value.ndim)), keepdims=True) / np.float32(_LARGEST)
        scale[scale == 0] = 1
        found[name], found[name + _SCALE] = np.round(value / scale).astype(np.int8), scale
    return found


def expand(tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Convert compressed tensors back to float32. Raises: ValueError if a scale does not fit."""
    found = {name: value for name, value in tensors.items() if not name.endswith(_SCALE)}
    for name in tensors.keys() - found.keys():
        scaled, scale = name.removesuffix(_SCALE), tensors[name]
        value = found.get(scaled, np.empty(0))
        if scale.shape != (*value.shape[:1], *[1] * (value.ndim - 1)):
            raise ValueError(f"{name} has the shape {scale.shape}, and {scaled} {value.shape}")
        found[scaled] = value.astype(np.float32) * scale.astype(np.float32)
    return found
