"""Precision of multiplications in training: bfloat16 with hardware support, else float32.

Weights, their updates, sums in batch norm and the loss are always float32, and so is all of evaluation. Processors with
AMX multiply bfloat16 matrices several times as fast as float32, and those with AVX512_BF16 up to twice as fast; on
others bfloat16 runs at half the rate, or in software.
"""

from contextlib import AbstractContextManager
from pathlib import Path

import torch

from reslab.errors import UserError
from reslab.machine import Precision

UNITS = frozenset({"amx_bf16", "avx512_bf16"})  # Linux's names of the features that multiply bfloat16


def pick_precision(wanted: str = "auto", *, device: torch.device) -> Precision:
    """Turn `auto`, `float32` or `bfloat16` into the precision of training.

    Raises: UserError if it is none of them.
    """
    if wanted not in ("auto", "float32", "bfloat16"):
        raise UserError(f"--precision {wanted}: choose auto, float32 or bfloat16")
    if wanted == "auto":
        return "bfloat16" if _has_units(device) else "float32"
    return "bfloat16" if wanted == "bfloat16" else "float32"


def _has_units(device: torch.device) -> bool:
    """Return whether the device multiplies bfloat16 in hardware; GPUs before Ampere only emulate it."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(UNITS & read_features())


def multiplying(precision: Precision, *, device: torch.device) -> AbstractContextManager[object]:
    """Run convolutions and matrix products in `precision` within the block."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def read_features() -> set[str]:
    """Read the processor's feature flags; empty on systems other than Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.startswith("flags") for flag in line.partition(":")[2].split()}
