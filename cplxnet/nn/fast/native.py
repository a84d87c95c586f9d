"""The C functions of this folder: compiled once per machine when first needed, and called.

In float32 on the CPU a training step spends much of its time in passes over large arrays, of which
tensor operations need many. The functions here need one. They add nothing but speed: without a C
compiler, with CPLXNET_NATIVE=0 in the environment, on a GPU or in float64 the plain formulas run,
and give the same values. Whether they may take some tensors is asked in `dispatch`.
"""

import atexit
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
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

SOURCES = ("kl.c", "noise.c", "batchnorm.c", "sparse.c")
HEADERS = ("shared.h",)
# Not -ffast-math: linked into a shared library it would switch denormal numbers off for the whole
# process.
FLAGS = ["-O3", "-march=native", "-std=gnu11", "-fPIC", "-fopenmp"]
FLAGS += ["-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math"]
FLAGS += ["-Werror=switch"]  # a KL term without its case does not compile
_PLAIN = (Tensor, Parameter)
_state = {"on": os.environ.get("CPLXNET_NATIVE", "1") != "0"}


def use(on: bool) -> None:
    """Switch the C functions on or off for this process."""
    _state["on"] = on


def enabled() -> bool:
    """Whether the C functions are switched on (not: whether they could be compiled)."""
    return _state["on"]


@functools.cache
def library() -> ctypes.CDLL | None:
    """The functions, compiled unless this machine has them; None and a warning if that fails."""
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
    """The library's path in the cache; its name tells sources, flags, compiler and processor."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise FileNotFoundError("no C compiler found")

    folder = Path(__file__).parent
    contents = [(folder / name).read_bytes() for name in (*SOURCES, *HEADERS)]
    identity = repr((contents, FLAGS, compiler, platform.platform(), _processor())).encode()
    name = f"native-{hashlib.sha256(identity).hexdigest()[:16]}.so"
    path = _cache_folder(name) / name
    if path.exists():
        return path

    with tempfile.TemporaryDirectory(dir=path.parent) as temporary:
        output = Path(temporary) / name
        sources = [str(folder / source) for source in SOURCES]
        command = [compiler, *FLAGS, "-shared", *sources, "-o", str(output), "-lm"]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
        os.replace(output, path)  # whole or not at all, whoever else compiles at the same time

    return path


def _cache_folder(name: str) -> Path:
    """A folder that has the library `name` or can be written: the user's cache, if possible.

    Where that cannot be written, or there is no home, a temporary folder of this process alone.
    """
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cplxnet"
        cache.mkdir(parents=True, exist_ok=True)
        if (cache / name).exists() or os.access(cache, os.W_OK | os.X_OK):
            return cache
    except (OSError, RuntimeError):  # RuntimeError: pathlib finds no home
        pass

    temporary = Path(tempfile.mkdtemp(prefix="cplxnet-"))
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    return temporary


def _processor() -> str:
    """The processor that is compiled for: machines that share a home folder may differ in it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()

    kinds = ("model name", "flags", "Features")
    return "".join(sorted({line for line in lines if line.startswith(kinds)}))


def is_plain(tensor: Tensor) -> bool:
    """Whether this is a Tensor or a Parameter, of no other subclass, and not batched by vmap."""
    return type(tensor) in _PLAIN and torch._C._has_storage(tensor)


def addressable(tensor: Tensor) -> bool:
    """Whether the tensor's numbers lie in the CPU's memory as they are, one after the other."""
    return (
        is_plain(tensor)
        and tensor.device.type == "cpu"
        and tensor.layout == torch.strided
        and tensor.is_contiguous()
        and not tensor.is_neg()
        and not tensor._is_zerotensor()
    )


def call(name: str, *arguments: Tensor | int | float | None) -> None:
    """Call a C function.

    Args:
        name: of the function.
        arguments: in C's order. A tensor goes as its pointer, None as a null pointer, an int as
            int64_t, a float as float.

    Raises:
        RuntimeError: a tensor has no memory that C can read, or the function refuses its arguments.
    """
    function = getattr(library(), name)
    if function(*map(_argument, arguments)):
        numbers = [value for value in arguments if isinstance(value, int | float)]
        raise RuntimeError(f"the C function {name} knows no such case: {numbers}")


def _argument(value: Tensor | int | float | None) -> Any:
    if value is None:
        return ctypes.c_void_p(None)
    if isinstance(value, int):
        return ctypes.c_int64(value)
    if isinstance(value, float):
        return ctypes.c_float(value)
    if not addressable(value):
        raise RuntimeError(
            "expected a plain contiguous tensor on the CPU in a backward pass in C, got "
            f"{type(value).__name__} on {value.device} of shape {tuple(value.shape)}; try the "
            "plain formulas (CPLXNET_NATIVE=0 in the environment), which can be batched and "
            "differentiated again"
        )
    return ctypes.c_void_p(value.data_ptr())


BLOCK = 4096  # numbers that a thread takes at a time; as in shared.h
