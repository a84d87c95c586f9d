"""The C functions of native.c: compiled once per machine when first needed, and what runs them.

On the CPU and in float32 a training step spends much of its time in passes over large arrays that tensor operations can
only make one small step at a time. The functions here make them in one. They are an addition: without a C compiler (or
with CPLXNET_NATIVE=0 in the environment), on a GPU, or in float64, the plain formulas run and give the same values.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("native.c")
# Not -ffast-math: linked into a shared library it would switch denormal numbers off for the whole process.
FLAGS = (
    "-O3 -march=native -std=gnu11 -fPIC -fopenmp -fno-math-errno -fno-trapping-math -fno-signed-zeros -fassociative-math"
).split()
_state = {"on": os.environ.get("CPLXNET_NATIVE", "1") != "0"}


def use(on: bool) -> None:
    """Switch the C functions on or off for this process."""
    _state["on"] = on


def usable(*tensors: Tensor) -> bool:
    """Whether the C functions can take these tensors: float32, contiguous, on the CPU, and there is a library."""
    fit = all(t.dtype == torch.float32 and t.device.type == "cpu" and t.is_contiguous() for t in tensors)
    return fit and _state["on"] and library() is not None


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled functions, compiled now unless this machine has them; None (and a warning) if that fails."""
    try:
        return ctypes.CDLL(str(_compiled()))
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or error
        warnings.warn(
            f"the C functions of cplxnet cannot be compiled, training will be slower: {detail}; "
            "try a C compiler (cc), or CPLXNET_NATIVE=0 to silence this",
            RuntimeWarning,
            stacklevel=4,
        )
        return None


def _compiled() -> Path:
    """The library's path in the user's cache, under a name that tells source, flags, compiler and processor."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise FileNotFoundError("no C compiler found")
    source = SOURCE.read_bytes()
    identity = repr((source, FLAGS, compiler, platform.platform(), _processor())).encode()
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "cplxnet"
    path = cache / f"native-{hashlib.sha256(identity).hexdigest()[:16]}.so"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            made = Path(folder) / path.name
            command = [compiler, *FLAGS, "-shared", str(SOURCE), "-o", str(made), "-lm"]
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
            os.replace(made, path)
    return path


def _processor() -> str:
    """What the code is compiled for: two machines that share a home folder may have different processors."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def _pointer(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def call(name: str, *arguments: Tensor | int | float) -> None:
    """Call a C function: tensors go as pointers, int as int64 (a leading `term` too: see native.c), float as float."""
    function = getattr(library(), name)
    function.restype = None
    kinds = {int: ctypes.c_int64, float: ctypes.c_float}
    function(*(_pointer(a) if isinstance(a, Tensor) else kinds[type(a)](a) for a in arguments))


BLOCK = 4096  # as in native.c
