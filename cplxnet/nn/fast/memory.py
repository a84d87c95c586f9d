"""Keeping freed memory, so that a training step need not get its pages from the system again."""

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # of mallopt, in glibc's <malloc.h>
_KEPT = 1 << 30  # bytes at the end of the heap
_LARGEST_MMAP_THRESHOLD = (
    32 << 20
)  # what glibc's own adaptation ends at, with twice that as trim threshold
_MOST_BLOCKS = 65536  # glibc's default


def keep_freed(on: bool = True) -> bool:
    """Have the C library keep up to 1 GiB of the memory that tensors free.

    glibc maps blocks beyond 32 MiB (a gradient of the 3712 -> 2048 layer) from the system one by
    one and gives them back when freed: thousands of page faults a step, a tenth of a dense step's
    time. Of the whole process, and of CPU memory alone. Returns whether it was done; other C
    libraries than glibc are left as they are.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    if on:
        settings = {_MMAP_MAX: 0, _TRIM_THRESHOLD: _KEPT}
    else:
        settings = {
            _MMAP_MAX: _MOST_BLOCKS,
            _MMAP_THRESHOLD: _LARGEST_MMAP_THRESHOLD,
            _TRIM_THRESHOLD: 2 * _LARGEST_MMAP_THRESHOLD,
        }
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(parameter, value) == 1 for parameter, value in settings.items())
