"""Thread settings of a process, chosen before PyTorch is loaded.

PyTorch's wheels include GNU's OpenMP, which reads its settings from the environment once, when it is loaded. By default
its threads wait for each other by spinning. If another program occupies the core of one thread, the waiting threads
keep their cores busy for nothing, and the system sees no free core to move that thread to. With these settings they
spin only for as long as a usual wait and then sleep, and no thread is bound to a core. Existing environment settings
are respected. Memory is configured through the C library at run time (`machine.memory`), so no process has to be
restarted.
"""

import os
import sys
from pathlib import Path

# Loop iterations: some microseconds, compared with some milliseconds by default.
SPINS = 1000
CGROUP, PROCESSORS = Path("/sys/fs/cgroup"), Path("/sys/devices/system/cpu")


def set_up_threads() -> None:
    """Set the number of threads, how they wait and where they run; has no effect once PyTorch is loaded."""
    if "torch" not in sys.modules:
        os.environ.update(choose_settings())


def choose_settings() -> dict[str, str]:
    """Choose the settings that the environment does not define."""
    chosen = {"OMP_NUM_THREADS": str(count_cores()), "OMP_PROC_BIND": "false"}
    if "OMP_WAIT_POLICY" not in os.environ:
        chosen["GOMP_SPINCOUNT"] = str(SPINS)
    return {name: value for name, value in chosen.items() if name not in os.environ}


def count_cores() -> int:
    """Count the physical cores that this process may use, limited by its quota."""
    if not hasattr(os, "sched_getaffinity"):  # macOS
        return os.cpu_count() or 1
    cores = {
        _read(PROCESSORS / f"cpu{number}/topology/thread_siblings_list") or number for number in os.sched_getaffinity(0)
    }
    return max(1, min(len(cores), int(read_quota() or len(cores))))


def read_quota() -> float | None:
    """Read the container's CPU quota for this process, in cores; None if there is no limit."""
    limit, _, period = (_read(CGROUP / "cpu.max") or "").partition(" ")
    if not period:  # cgroups v1
        limit, period = (_read(CGROUP / f"cpu/cpu.cfs_{name}_us") or "" for name in ("quota", "period"))
    granted = limit.isdecimal() and period.isdecimal() and int(period) > 0
    return int(limit) / int(period) if granted else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
