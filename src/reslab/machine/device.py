"""Which device to compute on."""

import re

import torch

from reslab.errors import UserError


def pick_device(name: str = "auto") -> torch.device:
    """Turn `auto`, `cpu`, `cuda` or `cuda:1` into a device; `auto` is the first GPU where there is one.

    Raises: UserError where the device is unknown or absent.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    known = re.fullmatch("cpu|cuda(?::([0-9]+))?", name)
    if known is None:
        raise UserError(f"unknown device {name!r}: choose auto, cpu, cuda or cuda:N")
    # Asked before PyTorch parses the number, of which it keeps one byte.
    if name != "cpu" and int(known[1] or 0) >= torch.cuda.device_count():
        raise UserError(f"device {name!r} is not here: {torch.cuda.device_count()} CUDA devices are visible to PyTorch")
    return torch.device(name)
