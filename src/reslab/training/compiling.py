"""Whether to compile a network before it is trained: where the time that it saves is more than the time that it takes.

On a GPU updates are replayed from recorded graphs (`graphs`), and compiling takes long for every shape of batch,
more than a short run; so a network is compiled there only where somebody wants it.

A compiled network rounds otherwise than one that is not, so a run's choice is recorded and kept when it goes on.
PyTorch keeps what it has compiled in a cache of its own, so that the next run of the same network takes less time.
"""

import os
import shutil
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from reslab.errors import UserError
from reslab.machine.precision import Precision
from reslab.machine.timing import time_update
from reslab.records import Compiled
from reslab.runs import Run

CHOICES: dict[str, Compiled] = {"on": "yes", "off": "no", "auto": "undecided"}

# Seen on two cores, both roughly: seconds to compile a layer for one shape of batch, and the share of an update's time
# that is then saved at best by most networks.
SECONDS_PER_LAYER, SAVED = 2.0, 0.2
MARGIN = 2  # a look may find that a network is quicker as it is, and has then cost what it has cost


def read_compile(wanted: str, *, device: torch.device) -> Compiled:
    """Turn `on`, `off` or `auto` into what a run records.

    Raises: UserError where it is none of them, or nothing on a processor can compile.
    """
    if wanted not in CHOICES:
        raise UserError(f"--compile {wanted}: choose on, off or auto")
    if wanted == "on" and device.type == "cpu" and not _has_compiler():
        raise UserError("--compile on needs a C++ compiler: install g++, name one in CXX, or omit --compile")
    return CHOICES[wanted]


def check_compiler(recorded: Compiled, *, device: torch.device) -> None:
    """Look whether a run goes on compiled where it was begun so. Raises: UserError where nothing here can compile."""
    if recorded == "yes" and device.type == "cpu" and not _has_compiler():
        raise UserError("the run was begun compiled, which needs a C++ compiler: install g++, or name one in CXX")


class Work(NamedTuple):
    """What a network has to do in a run: so many batches of so many shapes, of which (N, C, H, W) is the largest.

    Where batches come in chunks, a chunk is one.
    """

    batches: int
    batch: tuple[int, ...]
    shapes: int
    precision: Precision


def settle_compiled(run: Run, model: nn.Module, *, work: Work, say: Callable[[str], None]) -> bool:
    """Look up whether `run` is compiled, or decide it for `work`, say why and record it."""
    recorded = run.environment.compiled
    if recorded == "undecided":
        on_gpu = next(model.parameters()).device.type != "cpu"
        # A run that began before this was recorded was compiled on GPUs alone.
        compiled = on_gpu if run.has_checkpoint else not on_gpu and _pays(model, work, say)
        recorded = "yes" if compiled else "no"
        run.write_environment(run.environment.model_copy(update={"compiled": recorded}))
    return recorded == "yes"


def _pays(model: nn.Module, work: Work, say: Callable[[str], None]) -> bool:
    """Estimate, which costs nothing; only where that promises something, compile for one shape of batch and look."""
    if not _has_compiler():
        return False
    plain = time_update(model, batch=work.batch, precision=work.precision)
    cost, saved = _weigh(model, work, plain)
    if saved <= MARGIN * cost:
        say(f"Not compiled: it takes about {cost:.0f} s and saves about {saved:.0f} s")
        return False
    say(f"Compiling an update to see what it saves: that takes about {cost / work.shapes:.0f} s")
    compiled = time_update(model, batch=work.batch, precision=work.precision, compiled=True)
    pays = compiled < plain
    say(f"{'Compiled' if pays else 'Not compiled'}: an update takes {compiled:.3f} s so, else {plain:.3f} s")
    return pays


def _weigh(model: nn.Module, work: Work, plain: float) -> tuple[float, float]:
    """Estimate the seconds that it takes to compile, and those that it saves; an update takes `plain` without."""
    layers = sum(isinstance(module, nn.Conv2d | nn.Linear) for module in model.modules())
    return SECONDS_PER_LAYER * layers * work.shapes, SAVED * work.batches * plain


def share_of_time(model: nn.Module, *, work: Work, plain: float) -> float:
    """Guess the share of its time that training will take where it may compile: below 1 where that promises much.

    An update takes `plain` seconds without.
    """
    cost, saved = _weigh(model, work, plain)
    on_gpu = next(model.parameters()).device.type != "cpu"
    return 1 - SAVED if not on_gpu and saved > MARGIN * cost and _has_compiler() else 1.0


def _has_compiler() -> bool:
    return shutil.which(os.environ.get("CXX", "g++")) is not None
