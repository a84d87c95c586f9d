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
import shlex
import shutil
import stat
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor
from torch.nn import Parameter

from cplxnet import files

BLOCK = 4096  # numbers that a thread takes at a time; as in shared.h
SOURCES = ("kl.c", "noise.c", "batchnorm.c", "sparse.c")
HEADERS = ("shared.h",)
# Not -ffast-math: linked into a shared library it would switch denormal numbers off for the whole
# process.
FLAGS = ["-O3", "-march=native", "-std=gnu11", "-fPIC", "-fopenmp"]
FLAGS += ["-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math"]
FLAGS += ["-Werror=switch"]  # a KL term without its case does not compile
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_state = {"on": os.environ.get("CPLXNET_NATIVE", "1") != "0"}


def use(on: bool) -> None:
    """Switch the C functions and the GPU's kernels on or off for this process."""
    _state["on"] = on


def enabled() -> bool:
    """Whether they are switched on (not: whether they could be compiled)."""
    return _state["on"]


# -- the library -----------------------------------------------------------------------------------


@functools.cache
def library() -> ctypes.CDLL | None:
    """The functions, compiled unless this machine has them; None and a warning if that fails."""
    try:
        return ctypes.CDLL(str(_compiled()))
    except (OSError, subprocess.SubprocessError, ValueError) as error:  # ValueError: CC's quotes
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
    program, *options = shlex.split(os.environ.get("CC", "")) or ["cc"]
    compiler = shutil.which(program)
    if compiler is None:
        raise FileNotFoundError("no C compiler found")

    folder = Path(__file__).parent
    contents = [(folder / name).read_bytes() for name in (*SOURCES, *HEADERS)]
    build_inputs = (contents, [*FLAGS, *options], compiler, platform.platform(), _processor())
    name = f"native-{hashlib.sha256(repr(build_inputs).encode()).hexdigest()[:16]}.so"

    cache = _cache_folder()
    if cache is not None and _is_sound(cache / name):
        return cache / name

    if cache is None or not os.access(cache, os.W_OK | os.X_OK):
        cache = Path(tempfile.mkdtemp(prefix="cplxnet-"))  # of this process alone
        atexit.register(shutil.rmtree, cache, ignore_errors=True)

    with tempfile.TemporaryDirectory() as temporary:
        output = Path(temporary) / name
        sources = [str(folder / source) for source in SOURCES]
        command = [compiler, *options, *FLAGS, "-shared", *sources, "-o", str(output), "-lm"]
        subprocess.run(
            command, check=True, capture_output=True, errors="backslashreplace", timeout=120
        )
        binary = output.read_bytes()

    def fill(file: BinaryIO) -> None:
        os.fchmod(file.fileno(), stat.S_IMODE(os.fstat(file.fileno()).st_mode) & ~_OTHERS_WRITE)
        file.write(binary + hashlib.sha256(binary).digest())  # what follows a library is not loaded

    files.write(cache / name, fill)
    return cache / name


def _cache_folder() -> Path | None:
    """The user's cache, in which nobody else can put a library; None where there is none."""
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cplxnet"
        cache.mkdir(parents=True, exist_ok=True)
        status = cache.stat()
        if status.st_uid == os.getuid() and status.st_mode & _OTHERS_WRITE:
            cache.chmod(stat.S_IMODE(status.st_mode) & ~_OTHERS_WRITE)  # made under a umask of 002
        return cache if _is_private(cache.stat()) else None
    except (OSError, RuntimeError):  # RuntimeError: pathlib finds no home
        return None


def _is_private(status: os.stat_result) -> bool:
    """Whether only this user and root can write it."""
    return status.st_uid in (0, os.getuid()) and not status.st_mode & _OTHERS_WRITE


def _is_sound(path: Path) -> bool:
    """Whether this is a private file that ends with the digest of what is before.

    A library that is cut, zeroed or not ours would end the process, or run what others put there.
    """
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or not _is_private(status):
            return False
        contents = path.read_bytes()
    except OSError:
        return False

    size = hashlib.sha256().digest_size
    return hashlib.sha256(contents[:-size]).digest() == contents[-size:]


def _processor() -> str:
    """The processor that is compiled for: machines that share a home folder may differ in it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()

    kinds = ("model name", "flags", "Features")
    return "".join(sorted({line for line in lines if line.startswith(kinds)}))


# -- calls -----------------------------------------------------------------------------------------


def is_plain(tensor: Tensor) -> bool:
    """Whether this is a Tensor or a Parameter, of no other subclass, and not batched by vmap."""
    return type(tensor) in (Tensor, Parameter) and torch._C._has_storage(tensor)


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
