"""Keep freed memory in the process, so that the next batch can reuse its pages.

By default glibc returns every large buffer to the system and later gets it back zeroed, with a page fault for every
4 KiB. That slows down training and even more inference, mostly inside the kernel.
"""

import ctypes
import sys

# From glibc's malloc.h: how much may be free at the end of the heap, and how many buffers may be mapped separately.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
ANY_AMOUNT, NONE = 2**31 - 1, 0


def keep_freed_memory() -> bool:
    """Tell the C library to keep freed memory; return whether it accepted. Other allocators are not changed."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_MAX, NONE) and mallopt(M_TRIM_THRESHOLD, ANY_AMOUNT))
