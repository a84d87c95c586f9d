"""Reads the pickles of the old musicnet.npz, arrays and interval trees, without running a line of
theirs.

A pickle names functions and classes to call. Here each name it may use stands for a small stand-in
of ours that only keeps what it is given, and any other name is refused. numpy's own reconstruction
is not among them: it believes the pickle about how memory is laid out. Opcodes that need an import,
a persistent id or a registered code all go through `find_class` or fail.

Reference: Python's documentation of pickle, "Restricting Globals".
"""

import pickle
import struct
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from .errors import ArchiveError, short

_PLAIN = "biuf"  # kinds of numbers that an array may hold; beside them only "O", a list of objects


class Interval(NamedTuple):
    """A note: sounds on `[begin, end)` samples; `data` is (instrument, note, start_beat, end_beat,
    note_value).
    """

    begin: Any
    end: Any
    data: Any = None


class Tree(NamedTuple):
    """What stands for an interval tree: its intervals."""

    intervals: tuple[Interval, ...]


def _tree(intervals: Any = ()) -> Tree:
    if not all(type(interval) is Interval for interval in intervals):
        raise pickle.UnpicklingError("an interval tree of something else than intervals")
    return Tree(tuple(intervals))


class _Dtype:
    """What stands for numpy.dtype: its name and byte order."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any, *_: Any) -> None:
        self.code = str(code)
        self.order = "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = str(state[1])

    @property
    def numpy(self) -> np.dtype:
        """The type, for numbers only. Raises UnpicklingError for any other."""
        try:
            dtype = np.dtype(self.code)
        except TypeError:
            dtype = np.dtype("V")
        if dtype.kind not in _PLAIN:
            raise pickle.UnpicklingError(f"an array of {self.code}")

        if self.order == "<":
            return dtype.newbyteorder("<")
        return dtype.newbyteorder(">") if self.order == ">" else dtype


class _Array:
    """What stands for an array while its pickle is read; `value`: the array, or an object array's
    list.
    """

    __slots__ = ("value",)

    def __init__(self, *_: Any) -> None:
        self.value: Any = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, _, content = state
        if dtype.code in ("O", "O8", "O4", "object"):
            self.value = [content_of(item) for item in content]
            return

        raw = content.encode("latin1") if isinstance(content, str) else content  # Python 2's str
        self.value = np.frombuffer(raw, dtype.numpy).reshape(shape)


def _from_buffer(content: Any, dtype: Any, shape: Any, order: str) -> Any:
    array = _Array()
    array.value = np.frombuffer(content, dtype.numpy).reshape(shape)
    return array


def _scalar(dtype: _Dtype, content: Any) -> Any:
    raw = content.encode("latin1") if isinstance(content, str) else content
    return np.frombuffer(raw, dtype.numpy, count=1)[0].item()


def _latin1(text: Any, encoding: str) -> Any:
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes as {encoding}")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("intervaltree.intervaltree", "IntervalTree"): _tree,
    ("intervaltree.interval", "Interval"): Interval,
    ("intervaltree", "IntervalTree"): _tree,
    ("intervaltree", "Interval"): Interval,
    ("numpy", "ndarray"): _Array,  # only ever an argument
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _latin1,
}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # before and since numpy 2
    _ALLOWED |= {(_module, "_reconstruct"): _Array, (_module, "scalar"): _scalar}
for _module in ("numpy.core.numeric", "numpy._core.numeric"):
    _ALLOWED |= {(_module, "_frombuffer"): _from_buffer}


class _Callable:
    """A stand-in to be called and nothing else: a pickle can also set attributes, of classes and
    functions too.
    """

    __slots__ = ("_make",)
    _make: Callable[..., Any]

    def __init__(self, make: Callable[..., Any]) -> None:
        object.__setattr__(self, "_make", make)

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setattr__(self, name: str, _: Any) -> None:
        raise pickle.UnpicklingError(f"{name} of a class set")


class _Restricted(pickle._Unpickler):  # Python's own in C allocates what a pickle claims
    dispatch = dict(pickle._Unpickler.dispatch)

    def load_bytearray8(self) -> None:
        """As Python's, which makes room for what the pickle claims before it reads."""
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(size)))

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _Callable(_ALLOWED[module, name])
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name}") from None


def content_of(value: Any) -> Any:
    """`value`, or what a stand-in for an array holds."""
    return value.value if type(value) is _Array else value


def load(file: BinaryIO, where: str) -> Any:
    """The object pickled in `file`: numbers, texts, lists, arrays and `Tree`.

    Raises:
        ArchiveError: the pickle names anything else, or is broken; the text says what.
    """
    try:
        return content_of(_Restricted(file, encoding="latin1").load())
    except Exception as error:  # a broken pickle raises anything; whichever, nothing of it is used
        raise ArchiveError(
            f"{where}: expected a pickle of arrays and interval trees, "
            f"got {short(str(error)) or type(error).__name__}; "
            "it was refused, nothing in it was run"
        ) from None
