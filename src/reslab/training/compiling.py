"""Whether to compile a network before training: if that saves more time than it takes.

On a GPU, updates are replayed from recorded graphs (`graphs`), and compiling for every batch shape takes longer than a
short run; so a network is compiled there only on request.

Compiling changes rounding, so a run's choice is recorded and kept when it is resumed. PyTorch caches what it has
compiled, so the next run of the same network starts faster.
"""

import os
import shutil
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from reslab.errors import UserError
from reslab.machine import Precision
from reslab.machine.timing import time_update
from reslab.records import Compiled
from reslab.runs import Run

CHOICES: dict[str, Compiled] = {"on": "yes", "off": "no", "auto": "undecided"}

# Rough measurements on two cores: seconds to compile a layer for one batch shape, and the share of an update's time
# that this saves at best for most networks.
SECONDS_PER_LAYER, SAVED = 2.0, 0.2
MARGIN = 2  # compiling one shape to measure the gain is wasted if there is none


def read_compile(wanted: str, *, device: torch.device) -> Compiled:
    """Turn `on`, `off` or `auto` into what a run records.

    Raises: UserError if it is none of them, or there is no compiler for the CPU.
    """
    if wanted not in CHOICES:
        raise UserError(f"--compile {wanted}: choose on, off or auto")
    if wanted == "on" and device.type == "cpu" and not _has_compiler():
        raise UserError("--compile on needs a C++ compiler: install g++, name one in CXX, or omit --compile")
    return CHOICES[wanted]


def check_compiler(recorded: Compiled, *, device: torch.device) -> None:
    """Check that a run recorded as compiled can be compiled here. Raises: UserError if there is no compiler."""
    if recorded == "yes" and device.type == "cpu" and not _has_compiler():
        raise UserError("the run was started compiled, which needs a C++ compiler: install g++, or name one in CXX")


class Work(NamedTuple):
    """The work of a run: the numbers of batches and of batch shapes, and the largest shape (N, C, H, W).

    If batches come in chunks, each chunk counts as a batch.
    """

    batches: int
    batch: tuple[int, ...]
    shapes: int
    precision: Precision


def settle_compiled(run: Run, model: nn.Module, *, work: Work, say: Callable[[str], None]) -> bool:
    """Return whether `run` is compiled; if that is undecided, decide it for `work`, say why and record it."""
    recorded = run.environment.compiled
    if recorded == "undecided":
        on_gpu = next(model.parameters()).device.type != "cpu"
        # Runs from before this was recorded were compiled only on GPUs.
        compiled = on_gpu if run.has_checkpoint else not on_gpu and _pays(model, work, say)
        recorded = "yes" if compiled else "no"
        run.write_environment(run.environment.model_copy(update={"compiled": recorded}))
    return recorded == "yes"


def _pays(model: nn.Module, work: Work, say: Callable[[str], None]) -> bool:
    """Decide by a free estimate; only if that is promising, compile for one batch shape and measure."""
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
    say(f"{'Compiled' if pays else 'Not compiled'}: an update takes {compiled:.3f} s compiled, else {plain:.3f} s")
    return pays


def _weigh(model: nn.Module, work: Work, plain: float) -> tuple[float, float]:
    """Estimate the seconds that compiling takes and saves; an uncompiled update takes `plain` seconds."""
    layers = sum(isinstance(module, nn.Conv2d | nn.Linear) for module in model.modules())
    return SECONDS_PER_LAYER * layers * work.shapes, SAVED * work.batches * plain


def share_of_time(model: nn.Module, *, work: Work, plain: float) -> float:
    """Estimate the factor on training time from compiling: below 1 if that is promising.

    An uncompiled update takes `plain` seconds.
    """
    cost, saved = _weigh(model, work, plain)
    on_gpu = next(model.parameters()).device.type != "cpu"
    return 1 - SAVED if not on_gpu and saved > MARGIN * cost and _has_compiler() else 1.0


def _has_compiler() -> bool:
    return shutil.which(os.environ.get("CXX", "g++")) is not None
