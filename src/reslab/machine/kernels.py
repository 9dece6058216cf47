"""Compiled kernels for the processor: off until a command that computes switches them on.

They are loops in C, compiled by the system's C compiler ($CC, else `cc`) and kept in the user's cache directory, in
`kernels`. RESLAB_KERNELS=off in the environment, a system other than Linux or the lack of a compiler leave them off.
"""

import ctypes
import functools
import hashlib
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import platformdirs
import torch

FLAGS = ("-O3", "-march=native", "-fopenmp", "-fPIC")
COMPILER_SECONDS = 60

_on: ctypes.CDLL | None = None


def enable(device: torch.device) -> bool:
    """Switch the kernels on for this process where it computes on a processor, and say whether they are on.

    The first call on a machine compiles for a second or two; nothing else ever does.
    """
    global _on
    if device.type == "cpu":
        _on = _load()
    return are_on()


def are_on() -> bool:
    """Say whether this process computes with the kernels."""
    return _on is not None


def library() -> ctypes.CDLL:
    """Give the kernels, which are on."""
    assert _on is not None
    return _on


@functools.cache
def _load() -> ctypes.CDLL | None:
    """Load the kernels; None where they are switched off or cannot be had."""
    if os.environ.get("RESLAB_KERNELS") == "off" or sys.platform != "linux":
        return None
    try:
        return ctypes.CDLL(str(_build()))
    except (OSError, ValueError, subprocess.SubprocessError):  # the middle one: quotes in $CC that do not end
        return None


def _build() -> Path:
    """Compile winograd.c unless the cache holds it for this source, compiler and processor."""
    source = Path(__file__).with_name("winograd.c")
    compiler = shlex.split(os.environ.get("CC") or "cc")
    # The compiler's own macros tell its version and what the processor can do.
    macros = _call(*compiler, *FLAGS, "-dM", "-E", "-x", "c", os.devnull)
    key = hashlib.sha256(b"\0".join([source.read_bytes(), shlex.join([*compiler, *FLAGS]).encode(), macros]))
    library = platformdirs.user_cache_path("reslab") / "kernels" / f"winograd-{key.hexdigest()}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            made, part = Path(folder, "winograd.o"), Path(folder, "winograd.so")
            _call(*compiler, *FLAGS, "-c", str(source), "-o", str(made))
            # Linked with PyTorch instead of -fopenmp: so the process keeps the one OpenMP that PyTorch has brought.
            torch_cpu = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
            _call(*compiler, "-shared", str(made), "-Wl,--no-as-needed", str(torch_cpu), "-o", str(part))
            with part.open("rb") as file:
                os.fsync(file.fileno())  # half a file under a name that promises a whole one could never be loaded
            os.replace(part, library)
    return library


def _call(*command: str) -> bytes:
    return subprocess.run(command, capture_output=True, check=True, timeout=COMPILER_SECONDS).stdout
