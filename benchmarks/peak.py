"""What the processor can do at most in float32: the product of two matrices, and multiply-adds that stay in registers.

Both are steps for `alternate.py`, so that a peak is measured among the loops that are compared with it. The first is
what a program can have of PyTorch; the second, `fma.c` compiled for this processor, is all that there is.
"""

import ctypes
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from alternate import Worker, serve

from reslab.machine.launch import choose_settings

SIDE = 2048  # of the matrices
MULTIPLY_ADDS = 2**32  # of a step, all threads together


def products() -> Iterator[None]:
    """Multiply two matrices at each step."""
    left, right = torch.randn(2, SIDE, SIDE)
    while True:
        torch.mm(left, right)
        yield


def multiply_adds() -> Iterator[None]:
    """Multiply and add in registers at each step."""
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "fma.so")
        compiler = shlex.split(os.environ.get("CC") or "cc")
        flags = ("-O3", "-march=native", "-ffp-contract=fast", "-fopenmp", "-fPIC", "-shared")
        subprocess.run([*compiler, *flags, str(Path(__file__).with_name("fma.c")), "-o", str(library)], check=True)
        function = ctypes.CDLL(str(library)).multiply_add
    function.restype = ctypes.c_float
    while True:
        function(ctypes.c_long(MULTIPLY_ADDS // threads), threads)
        yield


PEAKS = {"mm": (products, 2 * SIDE**3), "fma": (multiply_adds, 2 * MULTIPLY_ADDS)}  # with the operations of a step


def start(peak: str) -> Worker:
    """Start one of them in a process of its own, with the settings that reslab chooses."""
    return Worker([sys.executable, __file__, peak], environment=choose_settings())


def gflops(peak: str, seconds: float) -> float:
    """Turn the seconds of a step into a rate, GFLOP/s."""
    return PEAKS[peak][1] / seconds / 1e9


if __name__ == "__main__":
    serve(PEAKS[sys.argv[1]][0]())
