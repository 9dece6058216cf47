"""The environment of a run, as recorded in `environment.json`."""

import datetime
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import reslab
from reslab.machine import Precision, kernels
from reslab.machine.precision import pick_precision
from reslab.records import Compiled, DataSet, Environment, Segment, Setup
from reslab.words import counted, printable

# Differences to report when a run is resumed; the rest of a setup is only recorded.
TOLD = ("device", "processor", "precision", "threads", "ranks", "torch", "numpy", "reslab", "kernels")


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
    """Describe versions, processor, device, threads, command, commit, seed and data of a new run."""
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
        kernels=None if device.type != "cpu" else "on" if kernels.are_on() else "off",
    )


def continue_environment(recorded: Environment, now: Environment, *, updates: int) -> Environment:
    """Record that a run is resumed after `updates` updates, with a new segment if the setup has changed.

    If no update was kept, the present setup counts as that of the whole run.
    """
    setup = {name: getattr(now, name) for name in Setup.model_fields}
    if updates == 0:
        return recorded.model_copy(update=setup)
    if not recorded.newest.differing(now):
        return recorded
    segment = Segment(**setup, updates=updates, started=now.started)
    return recorded.model_copy(update={"segments": (*recorded.segments, segment)})


def keep_precision(recorded: Environment, *, device: torch.device) -> Precision:
    """Return the precision with which a run is resumed: the original one if there is hardware support.

    Without it, bfloat16 is far slower than float32, and results on another device would differ anyway.
    """
    newest = recorded.newest
    if (newest.processor, newest.device) == (name_processor(), _name_device(device)):
        return newest.multiplied
    return min(recorded.multiplied, pick_precision(device=device), key=("float32", "bfloat16").index)


def tell_differences(before: Setup, now: Setup, *, updates: int, usual_threads: int) -> Iterator[str]:
    """Yield a line on what differs from before, and one if the number of threads is kept but not the usual one."""
    if before.threads == now.threads != usual_threads:
        yield f"{counted(now.threads, 'thread')}, as before; --threads {usual_threads} would be the default here"
    differing = before.differing(now)
    found = [f"{name} {getattr(before, name)}, now {getattr(now, name)}" for name in TOLD if name in differing]

    if found and updates:
        yield (
            f"From update {updates + 1:,} on the setup differs, so the weights will not be those of an uninterrupted "
            f"run: {'; '.join(found)} (environment.json records it)"
        )


def _name_device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _command() -> str:
    """Return the command line, or for notebooks only the kernel, whose argument is an arbitrary file."""
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
    """Return the commit of this source tree, marked if files differ from it; None outside a repository."""
    # A repository that reslab is merely installed below does not track this file.
    if _ask_git("ls-files", Path(__file__).name) is None:
        return None
    return _ask_git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _ask_git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
