"""Freed memory stays with the process, so that the next batch does not have to be given the same pages again.

By default glibc hands every large buffer back to the system and is given it anew, filled with zeros, a page fault for
every 4 KiB: a tax on training and more so on inference, paid mostly inside the kernel.
"""

import ctypes
import sys

# From glibc's malloc.h: how much may lie free at the end of the heap, and how many buffers may be mapped on their own.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
ANY_AMOUNT, NONE = 2**31 - 1, 0


def keep_freed_memory() -> bool:
    """Ask the C library to keep what is freed; say whether it understood. Other allocators are left as they are."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_MAX, NONE) and mallopt(M_TRIM_THRESHOLD, ANY_AMOUNT))
