"""Report what determines reslab's speed on this machine and what to change. Changes nothing itself."""

import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import reslab
from reslab.data.sources.catalog import OFFICIAL
from reslab.data.sources.cifar import find_data_dir, where_is
from reslab.machine import Precision, kernels
from reslab.machine.device import pick_device
from reslab.machine.launch import count_cores, read_quota
from reslab.machine.memory import keep_freed_memory
from reslab.machine.precision import pick_precision, read_features
from reslab.training.environment import name_processor

FEATURES = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16")
LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")  # these hide processor features from PyTorch
SIDE, SECONDS = 1024, 0.5  # of the matrices multiplied in the speed test, and its duration
GIGABYTE = 1e9
MIN_MEMORY, MIN_DISK = 2 * GIGABYTE, GIGABYTE


class Finding(NamedTuple):
    """One result of the examination; `advice` says what to change if it costs speed or causes trouble."""

    name: str
    value: str
    advice: str | None = None


def examine(data_dir: Path | None = None) -> list[Finding]:
    """Examine versions, processor, threads, precision, memory, disk, device, compiler and data, in about 2 seconds."""
    looks: tuple[Callable[[], Finding], ...] = (
        _look_at_versions,
        _look_at_processor,
        _look_at_cores,
        _look_at_threads,
        _look_at_waiting,
        _look_at_speed,
        _look_at_allocator,
        _look_at_memory,
        _look_at_device,
        _look_at_precision,
        _look_at_compiler,
        _look_at_kernels,
    )
    folder = find_data_dir(data_dir)
    return [*(look() for look in looks), _look_at_disk(folder), *_look_at_data(folder)]


# ---- processor


def _look_at_versions() -> Finding:
    versions = {"reslab": reslab.__version__, "Python": platform.python_version(), "PyTorch": torch.__version__}
    versions["NumPy"] = np.__version__
    return Finding("versions", ", ".join(f"{name} {version}" for name, version in versions.items()))


def _look_at_processor() -> Finding:
    flags = read_features()
    has = [name for name in FEATURES if name in flags]
    capability = torch.backends.cpu.get_cpu_capability()
    limits = [f"{name} (now {os.environ[name]})" for name in LIMITS if name in os.environ]
    return Finding(
        "processor",
        f"{name_processor()}; it has {', '.join(has) or 'none of ' + ', '.join(FEATURES)}; PyTorch uses {capability}",
        f"unset {', '.join(limits)}" if limits else None,
    )


def _look_at_cores() -> Finding:
    quota = read_quota()
    limit = "no quota" if quota is None else f"a quota of {quota:g}"
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    cores = count_cores()
    value = f"{cores} for this process, {os.cpu_count()} logical ones in the machine, {limit}, load {load:.1f}"
    busy = load > cores / 2
    return Finding("cores", value, "other programs are busy too: stop them, or expect a share" if busy else None)


def _look_at_threads() -> Finding:
    threads, cores = torch.get_num_threads(), count_cores()
    if threads == cores:
        return Finding("threads", str(threads))
    return Finding("threads", str(threads), f"unset OMP_NUM_THREADS, or use --threads {cores}: one for each core")


def _look_at_waiting() -> Finding:
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_PROC_BIND")
    settings = {name: os.environ[name] for name in names if name in os.environ}
    value = ", ".join(f"{name}={setting}" for name, setting in settings.items()) or "OpenMP's defaults"
    advice = None
    if settings.get("OMP_WAIT_POLICY", "").lower() == "active":
        advice = "unset OMP_WAIT_POLICY: next to another busy program, spinning threads cost more than their share"
    elif settings.get("OMP_PROC_BIND", "false").lower() != "false":
        advice = "unset OMP_PROC_BIND: a bound thread cannot move away from a core that another program uses"
    elif len(settings) == 0:
        advice = "start with the reslab command, or set GOMP_SPINCOUNT=1000 before PyTorch is imported"
    return Finding("waiting", value, advice)


def _look_at_speed() -> Finding:
    picked = pick_precision(device=torch.device("cpu"))
    rates = [f"{measure_gflops(precision):.0f} GFLOP/s in {precision}" for precision in sorted({"float32", picked})]
    return Finding("speed", f"{', '.join(rates)}, matrix products by torch.mm on the processor")


def measure_gflops(precision: Precision, *, seconds: float = SECONDS) -> float:
    """Measure the peak rate of `torch.mm` in 10^9 operations per second: the best of many products."""
    left, right = torch.randn(2, SIDE, SIDE).to(getattr(torch, precision))
    best, end = float("inf"), time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        torch.mm(left, right)
        best = min(best, time.perf_counter() - began)
    return 2 * SIDE**3 / best / 1e9


# ---- memory and disk


def _look_at_allocator() -> Finding:
    preloaded = os.environ.get("LD_PRELOAD")
    if preloaded:
        return Finding("allocator", f"preloaded: {preloaded}")
    if keep_freed_memory():
        return Finding("allocator", "glibc's, asked to keep freed memory")
    return Finding("allocator", "the system's, as it is", "on Linux with glibc freed memory is kept, which is faster")


def _look_at_memory() -> Finding:
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    except OSError:
        return Finding("memory", "unknown")
    total, free = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    advice = "end other programs, or train with a smaller micro_batch_size" if free < MIN_MEMORY else None
    return Finding("memory", f"{free / GIGABYTE:.1f} GB free of {total / GIGABYTE:.1f} GB", advice)


def _look_at_disk(folder: Path) -> Finding:
    places = [Path.cwd(), next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())]
    free = {str(path): shutil.disk_usage(path).free for path in places}
    value = ", ".join(f"{size / GIGABYTE:.1f} GB free in {path}" for path, size in free.items())
    full = [path for path, size in free.items() if size < MIN_DISK]
    return Finding("disk", value, f"make room in {', '.join(full)}" if full else None)


# ---- device and compiler


def _look_at_device() -> Finding:
    if torch.cuda.is_available():
        return Finding("device", ", ".join(map(torch.cuda.get_device_name, range(torch.cuda.device_count()))))
    unused = Path("/proc/driver/nvidia").exists()
    advice = "there is an NVIDIA driver that this PyTorch cannot use: install its CUDA build" if unused else None
    return Finding("device", "the processor; no CUDA device", advice)


def _look_at_precision() -> Finding:
    device = pick_device()
    precision = pick_precision(device=device)
    where = "the GPU" if device.type == "cuda" else "this processor"
    none = f"{where} has no units for bfloat16 ({'Ampere or newer' if device.type == 'cuda' else 'AMX or AVX512_BF16'})"
    why = f"{where} has units for it" if precision == "bfloat16" else none
    return Finding("precision", f"{precision} is what --precision auto takes: {why}")


def _look_at_compiler() -> Finding:
    try:
        command = shlex.split(os.environ.get("CC") or "cc")
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, ValueError, subprocess.SubprocessError):  # ValueError: unclosed quotes in $CC
        return Finding("compiler", "none", "install a C compiler (gcc or clang), or name it in CC")
    return Finding("compiler", done.stdout.splitlines()[0] if done.stdout else command[0])


def _look_at_kernels() -> Finding:
    if kernels.enable(torch.device("cpu")):
        return Finding("Winograd kernels", f"on, in {kernels.library()._name}")
    if os.environ.get("RESLAB_KERNELS") == "off":
        return Finding("Winograd kernels", "off, by RESLAB_KERNELS", "unset RESLAB_KERNELS")
    advice = "a C compiler with OpenMP is needed" if sys.platform == "linux" else None
    return Finding("Winograd kernels", "off: wide convolutions are PyTorch's", advice)


# ---- data


def _look_at_data(folder: Path) -> Iterator[Finding]:
    for name in ("cifar10", "cifar100"):
        archive = OFFICIAL[name].archive
        found = where_is(archive, folder)
        if found is None:
            yield Finding(
                name, "not here, downloaded when it is needed", f"without a network, put {archive.name} into {folder}"
            )
        else:
            yield Finding(name, f"in {found}" + (", unpacked when it is needed" if found.name == archive.name else ""))
