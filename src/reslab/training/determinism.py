"""The strict mode of a run: only algorithms that give the same bits every time, or an error where there is none."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from reslab.errors import UserError
from reslab.records import Setup

# Read by cuBLAS when it is first used: buffers of its own for every stream, so that their sums keep one order.
WORKSPACE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
NO_ALGORITHM = "does not have a deterministic implementation"


@contextmanager
def own_generator(device: torch.device) -> Iterator[None]:
    """Draw from PyTorch's global generators while the block runs, and leave them as the caller had them."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


@contextmanager
def strictly(wanted: bool) -> Iterator[None]:
    """Let PyTorch choose only algorithms that repeat to the bit while the block runs, where that is wanted.

    Raises: UserError where the device has none for an operation.
    """
    if not wanted:
        yield
        return
    os.environ.setdefault(*WORKSPACE)
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False  # which would choose by time
    try:
        yield
    except RuntimeError as error:
        if NO_ALGORITHM not in str(error):
            raise
        raise UserError(f"--deterministic is not possible here: {str(error).split(',')[0]}; omit it") from None
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


def check_same_machine(recorded: Setup, now: Setup) -> None:
    """Look whether a strict run would go on as it began. Raises: UserError naming what is another."""
    for name in ("device", "processor", "threads", "ranks", "torch", "numpy"):
        was, is_now = getattr(recorded, name), getattr(now, name)
        if was != is_now:
            raise UserError(
                f"the run was begun with --deterministic and {name} {was}, which is {is_now} here: "
                "resume as it was started, or train again"
            )
