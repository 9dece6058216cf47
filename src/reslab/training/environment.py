"""Where a run is made: what `environment.json` records."""

import datetime
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import reslab
from reslab.machine.precision import pick_precision
from reslab.records import Compiled, DataSet, Environment, Precision, Segment, Setup
from reslab.words import counted, printable

# What a person should know of before a run goes on otherwise; the rest of a setup is only recorded.
TOLD = ("device", "processor", "precision", "threads", "ranks", "torch", "numpy", "reslab")


def describe_environment(
    *,
    device: torch.device,
    seed: int,
    data: tuple[DataSet, ...],
    data_from: str | None = None,
    compiled: Compiled = "undecided",
    precision: Precision | None = None,
    deterministic: bool = False,
    ranks: int = 1,
) -> Environment:
    """Record versions, processor, device, threads, command, commit, seed and data of the run that begins now."""
    return Environment(
        reslab=reslab.__version__,
        python=platform.python_version(),
        torch=torch.__version__,
        numpy=np.__version__,
        platform=platform.platform(),
        processor=name_processor(),
        device=_name_device(device),
        threads=torch.get_num_threads(),
        command=_command(),
        commit=_commit(),
        seed=seed,
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        data=data,
        data_from=data_from,
        compiled=compiled,
        precision=precision or pick_precision(device=device),
        deterministic=deterministic,
        ranks=ranks,
    )


def continue_environment(recorded: Environment, now: Environment, *, updates: int) -> Environment:
    """Record that a run goes on after so many updates, in a segment where something differs from the one before.

    Where nothing was kept, what computes it now has computed it from the start.
    """
    setup = {name: getattr(now, name) for name in Setup.model_fields}
    if updates == 0:
        return recorded.model_copy(update=setup)
    if all(getattr(recorded.newest, name) == value for name, value in setup.items()):
        return recorded
    segment = Segment(**setup, updates=updates, started=now.started)
    return recorded.model_copy(update={"segments": (*recorded.segments, segment)})


def keep_precision(recorded: Environment, *, device: torch.device) -> Precision:
    """Give what a run goes on multiplying with: what it began with, where there are units for that.

    On another processor or device without them, bfloat16 is far slower than float32, and its bits would differ anyway.
    """
    newest = recorded.newest
    if (newest.processor, newest.device) == (name_processor(), _name_device(device)):
        return newest.multiplied
    return min(recorded.multiplied, pick_precision(device=device), key=("float32", "bfloat16").index)


def tell_differences(before: Setup, now: Setup, *, updates: int, usual_threads: int) -> Iterator[str]:
    """Say in a line what differs from before, and in another that threads are those of before, not the usual ones."""
    if before.threads == now.threads != usual_threads:
        yield f"{counted(now.threads, 'thread')}, as before; --threads {usual_threads} would be as many as usual here"
    pairs = [(name, getattr(before, name), getattr(now, name)) for name in TOLD]
    found = [f"{name} {was}, now {is_now}" for name, was, is_now in pairs if was != is_now]
    if found:
        yield (
            f"From update {updates + 1:,} on it is computed otherwise, so its weights will not be those of a run that "
            f"was never stopped: {'; '.join(found)} (environment.json records it)"
        )


def _name_device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _command() -> str:
    """Say what was run; a notebook's kernel has no arguments but a file of its own, somewhere on the machine."""
    path = Path(sys.argv[0])
    program = "reslab" if path.parts[-2:] == ("reslab", "__main__.py") else path.name  # python -m reslab
    return printable(program if program == "ipykernel_launcher.py" else " ".join([program, *sys.argv[1:]]))


def name_processor() -> str:
    """Name the processor as the system does, with its widest vector instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()} ({torch.backends.cpu.get_cpu_capability()})"


def _commit() -> str | None:
    """Find the commit of this source tree, marked where files differ from it; None outside a repository."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
