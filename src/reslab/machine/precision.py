"""With which numbers training multiplies: bfloat16 where the device has units for it, else float32.

Weights, their updates, sums of batch norm and the loss are float32 everywhere, and so is all of evaluation.
Processors with AMX multiply matrices of bfloat16 several times as fast as of float32, and those with AVX512_BF16 up to
twice as fast; the others have it at half the rate, or in software.
"""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import torch

from reslab.errors import UserError

Precision = Literal["float32", "bfloat16"]

UNITS = frozenset({"amx_bf16", "avx512_bf16"})  # as Linux names what multiplies bfloat16


def pick_precision(wanted: str = "auto", *, device: torch.device) -> Precision:
    """Turn `auto`, `float32` or `bfloat16` into what training multiplies with.

    Raises: UserError where it is none of them.
    """
    if wanted not in ("auto", "float32", "bfloat16"):
        raise UserError(f"--precision {wanted}: choose auto, float32 or bfloat16")
    if wanted == "auto":
        return "bfloat16" if device.type == "cuda" or UNITS & read_features() else "float32"
    return "bfloat16" if wanted == "bfloat16" else "float32"


def multiplying(precision: Precision, *, device: torch.device) -> AbstractContextManager[object]:
    """Let convolutions and products of matrices take `precision` inside the block."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def read_features() -> set[str]:
    """Read the names of what the processor can do; none where the system is not Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.startswith("flags") for flag in line.partition(":")[2].split()}
