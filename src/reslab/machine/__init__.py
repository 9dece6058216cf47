"""This computer's hardware and its use: devices, precision, memory, threads, kernels."""

from typing import Literal

Precision = Literal["float32", "bfloat16"]  # of multiplications in training: see machine.precision
