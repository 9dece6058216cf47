"""Whether to compile a network before it is trained: where the time that it saves is more than the time that it takes.

On a GPU updates are replayed from recorded graphs (`graphs`), and compiling takes about half a minute for every shape
of batch, more than a short run; so a network is compiled there only where somebody wants it.

A compiled network rounds otherwise than one that is not, so a run's choice is recorded and kept when it goes on.
PyTorch keeps what it has compiled in a cache of its own, so that the next run of the same network takes less time.
"""

import os
import shutil
from collections.abc import Callable

import torch
from torch import nn

from reslab.errors import UserError
from reslab.models import winograd
from reslab.models.layers import Conv3x3
from reslab.models.timing import time_update
from reslab.records import Compiled
from reslab.runs import Run

CHOICES: dict[str, Compiled] = {"on": "yes", "off": "no", "auto": "undecided"}

# Seen on two cores with AVX2, both roughly: seconds to compile a layer, and the share of an update's time then saved.
SECONDS_PER_LAYER, SAVED = 4.0, 0.02


def read_compile(wanted: str, *, device: torch.device) -> Compiled:
    """Turn `on`, `off` or `auto` into what a run records.

    Raises: UserError where it is none of them, or nothing on a processor can compile.
    """
    if wanted not in CHOICES:
        raise UserError(f"--compile {wanted}: choose on, off or auto")
    if wanted == "on" and device.type == "cpu" and not _has_compiler():
        raise UserError("--compile on needs a C++ compiler: install g++, name one in CXX, or leave --compile away")
    return CHOICES[wanted]


def settle_compiled(
    run: Run, model: nn.Module, *, updates: int, batch: tuple[int, ...], say: Callable[[str], None]
) -> bool:
    """Look up whether `run` is compiled, or decide it for `updates` on batches (N, C, H, W), say why and record it."""
    recorded = run.environment.compiled
    if recorded == "undecided":
        on_gpu = next(model.parameters()).device.type != "cpu"
        # A run that began before this was recorded was compiled on GPUs alone.
        compiled = on_gpu if run.has_checkpoint else not on_gpu and _pays(model, updates=updates, batch=batch, say=say)
        recorded = "yes" if compiled else "no"
        run.write_environment(run.environment.model_copy(update={"compiled": recorded}))
    return recorded == "yes"


def _pays(model: nn.Module, *, updates: int, batch: tuple[int, ...], say: Callable[[str], None]) -> bool:
    if not _has_compiler() or (winograd.available() and any(isinstance(m, Conv3x3) for m in model.modules())):
        return False  # compiled code would have to do without the Winograd convolutions
    layers = sum(isinstance(module, nn.Conv2d | nn.Linear) for module in model.modules())
    cost, saved = SECONDS_PER_LAYER * layers, SAVED * updates * time_update(model, batch=batch)
    say(f"{'Compiled' if saved > cost else 'Not compiled'}: it takes about {cost:.0f} s and saves about {saved:.0f} s")
    return saved > cost


def _has_compiler() -> bool:
    return shutil.which(os.environ.get("CXX", "g++")) is not None
