"""How a process computes on its processor, decided before PyTorch is loaded.

PyTorch's wheels bring GNU's OpenMP, which reads its settings from the environment once, when it is loaded. By default
its threads wait for each other by spinning: a thread that waits for one whose core is taken by another program then
keeps a core busy for nothing, and the system sees no free one to move the other thread to. Here they spin for as long
as the usual wait lasts and then sleep, and none is bound to a core. What the environment says already is respected.
How memory is kept is asked of the C library at run time (`models.memory`), so no process has to be started twice.
"""

import os
import sys
from pathlib import Path

# Rounds of a loop: some microseconds, where GNU's default is some milliseconds.
SPINS = 1000
CGROUP, PROCESSORS = Path("/sys/fs/cgroup"), Path("/sys/devices/system/cpu")


def set_up_threads() -> None:
    """Choose threads, how they wait and where they run; too late, and so without effect, once PyTorch is loaded."""
    if "torch" not in sys.modules:
        os.environ.update(choose_settings())


def choose_settings() -> dict[str, str]:
    """Choose what the environment leaves open."""
    chosen = {"OMP_NUM_THREADS": str(count_cores()), "OMP_PROC_BIND": "false"}
    if "OMP_WAIT_POLICY" not in os.environ:
        chosen["GOMP_SPINCOUNT"] = str(SPINS)
    return {name: value for name, value in chosen.items() if name not in os.environ}


def count_cores() -> int:
    """Count the cores that this process may use: one for two threads of a core, and no more than its quota grants."""
    if not hasattr(os, "sched_getaffinity"):  # macOS
        return os.cpu_count() or 1
    cores = {
        _read(PROCESSORS / f"cpu{number}/topology/thread_siblings_list") or number for number in os.sched_getaffinity(0)
    }
    return max(1, min(len(cores), int(read_quota() or len(cores))))


def read_quota() -> float | None:
    """Read how many cores' worth of time the container's limit grants this process; None where there is no limit."""
    limit, _, period = (_read(CGROUP / "cpu.max") or "").partition(" ")
    if not period:  # cgroups of the first version
        limit, period = (_read(CGROUP / f"cpu/cpu.cfs_{name}_us") or "" for name in ("quota", "period"))
    granted = limit.isdecimal() and period.isdecimal() and int(period) > 0
    return int(limit) / int(period) if granted else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
