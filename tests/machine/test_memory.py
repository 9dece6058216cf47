"""Activations that are freed after a step and taken again in the next one cost no page faults."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import torch
from reslab.machine.memory import keep_freed_memory
assert keep_freed_memory()
def step():
    activations = [torch.zeros(2**21) for _ in range(16)]  # 8 MiB each
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults() -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is asked to keep memory")
def test_kept_memory_is_not_faulted_in_again() -> None:
    assert faults() < 1000
