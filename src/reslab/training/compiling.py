"""Whether to compile a network before training: if that saves more time than it takes.

On a GPU, updates are replayed from recorded graphs (`graphs`), and compiling for every batch shape takes longer than a
short run; so a network is compiled there only on request.

Compiling changes rounding, so a run's choice is recorded and kept when it is resumed. PyTorch caches what it has
compiled, so the next run of the same network starts faster.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

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
NO_LIMIT: Final = 10**6


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


class CannotCompile(UserError):  # noqa: N818 - a kind of error, not its name
    """The C++ compiler does not work, or not for this network."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the network cannot be compiled here: {reason}; repair the C++ compiler, name another one in CXX, or "
            "train with --compile off"
        )
        self.reason = reason


@contextmanager
def compiling(is_compiled: bool = True) -> Iterator[None]:
    """Compile every batch shape within the block, however many there are.

    After eight shapes, PyTorch would run the others uncompiled without a word. Which ones depends on what the process
    has compiled before, so a resumed run would round differently.

    Raises: CannotCompile with the compiler's reason.
    """
    if not is_compiled:
        yield
        return
    import torch._dynamo  # only here, since it takes a second

    with torch._dynamo.config.patch(recompile_limit=NO_LIMIT, accumulated_recompile_limit=NO_LIMIT):
        try:
            yield
        except torch._dynamo.exc.TorchDynamoException as error:
            raise CannotCompile(_find_reason(error)) from None


def _find_reason(error: Exception) -> str:
    """Return the first line of a compiler's output that reports an error, else the first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "error: " in line), lines[0] if lines else type(error).__name__)


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
        say(f"Not compiled: that would take about {cost:.0f} s and save about {saved:.0f} s")
        return False
    say(f"Compiling an update to see what it saves: that takes about {cost / work.shapes:.0f} s")
    try:
        with compiling():
            compiled = time_update(model, batch=work.batch, precision=work.precision, compiled=True)
    except CannotCompile as error:
        say(f"Not compiled: {error.reason}")
        return False
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
