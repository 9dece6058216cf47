"""Deterministic mode of a run: only bitwise reproducible algorithms, or an error if there is none."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from reslab.errors import UserError
from reslab.records import Setup

# Read by cuBLAS on first use: a separate workspace for every stream keeps the order of summation fixed.
WORKSPACE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
NO_ALGORITHM = "does not have a deterministic implementation"


@contextmanager
def own_generator(device: torch.device) -> Iterator[None]:
    """Use PyTorch's global generators within the block, then restore their state."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


@contextmanager
def strictly(wanted: bool) -> Iterator[None]:
    """If `wanted`, restrict PyTorch to bitwise reproducible algorithms within the block.

    In any case, a choice of algorithms by timing ends with the block.
    Raises: UserError if the device has none for an operation.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    if wanted:
        os.environ.setdefault(*WORKSPACE)
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False  # it would choose algorithms by timing
    try:
        yield
    except RuntimeError as error:
        if not wanted or NO_ALGORITHM not in str(error):
            raise
        raise UserError(f"--deterministic is not possible here: {str(error).split(',')[0]}; omit it") from None
    finally:
        if wanted:
            torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


def check_same_machine(recorded: Setup, now: Setup) -> None:
    """Check that a deterministic run would continue as it started. Raises: UserError naming what differs."""
    differing = recorded.differing(now)
    for name in ("device", "processor", "threads", "ranks", "torch", "numpy", "kernels"):
        if name in differing:
            raise UserError(
                f"the run was started with --deterministic and {name} {getattr(recorded, name)}, which is "
                f"{getattr(now, name)} here: resume as it was started, or train again"
            )
