"""Where a run is made: what `environment.json` records."""

import datetime
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

import reslab
from reslab.models.precision import pick_precision
from reslab.records import Compiled, DataSet, Environment, Precision


def describe_environment(
    *,
    device: torch.device,
    seed: int,
    data: tuple[DataSet, ...],
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
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        threads=torch.get_num_threads(),
        command=_command(),
        commit=_commit(),
        seed=seed,
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        data=data,
        compiled=compiled,
        precision=precision or pick_precision(device=device),
        deterministic=deterministic,
        ranks=ranks,
    )


def _command() -> str:
    """Say what was run; a notebook's kernel has no arguments but a file of its own, somewhere on the machine."""
    path = Path(sys.argv[0])
    program = "reslab" if path.parts[-2:] == ("reslab", "__main__.py") else path.name  # python -m reslab
    return program if program == "ipykernel_launcher.py" else " ".join([program, *sys.argv[1:]])


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
