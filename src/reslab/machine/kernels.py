"""Compiled CPU kernels, off until a computing command switches them on.

They are loops in C, compiled by the system's C compiler ($CC, else `cc`) and kept in `kernels` in the user's cache
directory. They stay off with RESLAB_KERNELS=off in the environment, without a compiler, and outside Linux.
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
    """Switch the kernels on for this process if it computes on the CPU, and return whether they are on.

    The first call on a machine compiles for a second or two; nothing else does.
    """
    global _on
    if device.type == "cpu":
        _on = _load()
    return are_on()


def are_on() -> bool:
    """Return whether this process uses the kernels."""
    return _on is not None


def library() -> ctypes.CDLL:
    """Return the kernels, which must be on."""
    assert _on is not None
    return _on


@functools.cache
def _load() -> ctypes.CDLL | None:
    """Load the kernels; None if they are switched off or cannot be built."""
    if os.environ.get("RESLAB_KERNELS") == "off" or sys.platform != "linux":
        return None
    try:
        return ctypes.CDLL(str(_build()))
    except (OSError, ValueError, subprocess.SubprocessError):  # ValueError: unclosed quotes in $CC
        return None


def _build() -> Path:
    """Compile winograd.c unless the cache has it for this source, compiler and processor."""
    source = Path(__file__).with_name("winograd.c")
    compiler = shlex.split(os.environ.get("CC") or "cc")
    # The compiler's macros identify its version and the processor's features.
    macros = _call(*compiler, *FLAGS, "-dM", "-E", "-x", "c", os.devnull)
    key = hashlib.sha256(b"\0".join([source.read_bytes(), shlex.join([*compiler, *FLAGS]).encode(), macros]))
    library = platformdirs.user_cache_path("reslab") / "kernels" / f"winograd-{key.hexdigest()}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            made, part = Path(folder, "winograd.o"), Path(folder, "winograd.so")
            _call(*compiler, *FLAGS, "-c", str(source), "-o", str(made))
            # Linked with PyTorch instead of -fopenmp, so that the process keeps PyTorch's OpenMP as the only one.
            torch_cpu = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
            _call(*compiler, "-shared", str(made), "-Wl,--no-as-needed", str(torch_cpu), "-o", str(part))
            with part.open("rb") as file:
                os.fsync(file.fileno())  # a partial file under the final name could never be loaded
            os.replace(part, library)
    return library


def _call(*command: str) -> bytes:
    return subprocess.run(command, capture_output=True, check=True, timeout=COMPILER_SECONDS).stdout
