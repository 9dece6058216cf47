"""Choice of the device to compute on."""

import re

import torch

from reslab.errors import UserError


def pick_device(name: str = "auto") -> torch.device:
    """Turn `auto`, `cpu`, `cuda` or `cuda:1` into a device; `auto` is the first GPU if there is one.

    From then on, convolutions on a GPU are computed in float32 where that is asked for.
    Raises: UserError if the device is unknown or not available.
    """
    device = _find_device(name)
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # by default, Ampere and later round factors to 11 significant bits
    return device


def _find_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    known = re.fullmatch("cpu|cuda(?::([0-9]+))?", name)
    if known is None:
        raise UserError(f"unknown device {name!r}: choose auto, cpu, cuda or cuda:N")
    # Checked before PyTorch parses the number, which it truncates to one byte.
    if name != "cpu" and int(known[1] or 0) >= torch.cuda.device_count():
        raise UserError(f"device {name!r} not found: {torch.cuda.device_count()} CUDA devices are visible to PyTorch")
    return torch.device(name)
