"""Keeping freed memory, so that a training step need not get its pages from the system again."""

import ctypes
import platform

# parameters of mallopt in glibc's <malloc.h>
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_MMAP_MAX = -4

_KEPT = 1 << 30  # bytes at the end of the heap

# glibc's own: what its thresholds adapt to, with twice that for trimming, and its most blocks
_LARGEST_MMAP_THRESHOLD = 32 << 20
_MOST_BLOCKS = 65536


def keep_freed(on: bool = True) -> bool:
    """Have the C library keep up to 1 GiB of the memory that tensors free.

    glibc gets blocks beyond 32 MiB (a gradient of the 3712 -> 2048 layer) from the system one by
    one, and gives them back when freed: thousands of page faults a step, a tenth of a dense step's
    time. This concerns the whole process, and CPU memory alone.

    Args:
        on: False restores glibc's own settings.

    Returns:
        Whether it was done; C libraries other than glibc are left as they are.
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
