"""Reads the pickles of the old musicnet.npz, arrays and interval trees, without running a line of
theirs.

A pickle names functions and classes to call. Here each name it may use stands for a small stand-in
of ours that only keeps what it is given, and any other name is refused. numpy's own reconstruction
is not among them: it believes the pickle about how memory is laid out. Opcodes that need an import,
a persistent id or a registered code all go through `find_class` or fail.

A recording's samples need no memory: the pickle is copied opcode by opcode, and a string of 64 KiB
or more is left in the file, a persistent id in the copy telling its place.

References: Python's documentation of pickle, "Restricting Globals"; `pickletools`, which describes
every opcode.
"""

import codecs
import io
import math
import pickle
import pickletools
import struct
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from .errors import ArchiveError

_PLAIN = "biuf"  # kinds of numbers that an array may hold; beside them only "O", a list of objects
_LARGE = 1 << 16  # bytes; longer strings stay in the file
_MOST = 1 << 26  # bytes beside those; a recording's interval tree has under 1 MB
_BLOCK = 1 << 20
_STRINGS = {  # opcodes of strings, and the format of their length
    "BINSTRING": "<i",
    "BINBYTES": "<I",
    "BINBYTES8": "<Q",
    "BYTEARRAY8": "<Q",
    "BINUNICODE": "<I",  # so Python 3 writes bytes in Python 2's protocols
    "BINUNICODE8": "<Q",
}
_OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}
_REFUSED = {"PERSID", "BINPERSID"}  # ours alone


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


class Left(NamedTuple):
    """`size` bytes left where they are, `begin` bytes from the pickle's beginning; if `text`,
    latin-1 as UTF-8.
    """

    begin: int
    size: int
    text: bool

    def blocks(self, file: BinaryIO) -> Iterator[bytes]:
        """The bytes in blocks, `file` being where the pickle begins."""
        file.seek(file.tell() + self.begin)
        left = self.size
        decoder = codecs.getincrementaldecoder("utf-8")()
        while left and (raw := file.read(min(left, _BLOCK))):
            left -= len(raw)
            yield decoder.decode(raw).encode("latin1") if self.text else raw


class Stored(NamedTuple):
    """A large array, left where it is: type and shape, and its place in the pickle."""

    dtype: np.dtype
    shape: tuple[int, ...]
    place: Left


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


def _numbers(content: Any, dtype: np.dtype, shape: Any) -> Any:
    """The array of what an array's pickle holds, or where it is."""
    if not isinstance(content, Left):
        return np.frombuffer(content, dtype).reshape(shape)
    shape = tuple(int(n) for n in shape)
    expected = math.prod(shape) * dtype.itemsize
    if not (content.size >= expected if content.text else content.size == expected):
        raise pickle.UnpicklingError(f"{content.size} bytes for an array of {expected}")
    return Stored(dtype, shape, content)


class _Array:
    """What stands for an array while its pickle is read; `value`: the array, where it is, or an
    object array's list.
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
        self.value = _numbers(raw, dtype.numpy, shape)


def _from_buffer(content: Any, dtype: Any, shape: Any, order: str) -> Any:
    array = _Array()
    array.value = _numbers(content, dtype.numpy, shape)
    return array


def _scalar(dtype: _Dtype, content: Any) -> Any:
    raw = content.encode("latin1") if isinstance(content, str) else content
    return np.frombuffer(raw, dtype.numpy, count=1)[0].item()


def _latin1(text: Any, encoding: str) -> Any:
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes as {encoding}")
    return text if isinstance(text, Left) else text.encode("latin1")


def _ndarray(*_: Any) -> Any:
    """What stands for the class numpy.ndarray, which is only ever an argument."""
    raise pickle.UnpicklingError("numpy.ndarray called")


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("intervaltree.intervaltree", "IntervalTree"): _tree,
    ("intervaltree.interval", "Interval"): Interval,
    ("intervaltree", "IntervalTree"): _tree,
    ("intervaltree", "Interval"): Interval,
    ("numpy", "ndarray"): _ndarray,
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


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _Callable(_ALLOWED[module, name])
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> Left:
        return _left(pid)


def content_of(value: Any) -> Any:
    """`value`, or what a stand-in for an array holds."""
    return value.value if type(value) is _Array else value


def load(file: BinaryIO, where: str) -> Any:
    """The object pickled in `file` (seekable): numbers, texts, lists, arrays, `Stored` for large
    ones, `Tree`.

    Raises:
        ArchiveError: the pickle names anything else, or is broken; the text says what.
    """
    try:
        return content_of(_Restricted(io.BytesIO(_outline(file)), encoding="latin1").load())
    except Exception as error:  # a broken pickle raises anything; whichever, nothing of it is used
        raise ArchiveError(
            f"{where}: expected a pickle of arrays and interval trees, "
            f"got {error or type(error).__name__}; "
            "it was refused, nothing in it was run"
        ) from None


def _skip(file: BinaryIO, size: int) -> None:
    while size and (content := file.read(min(size, _BLOCK))):
        size -= len(content)
    if size:
        raise EOFError(f"the pickle ends {size} bytes early")


def _copy(file: BinaryIO, opcode: pickletools.OpcodeInfo) -> bytes:
    """The argument of `opcode`, as it stands in the file."""
    if opcode.arg is None:
        return b""
    begin = file.tell()
    opcode.arg.reader(file)
    size = file.tell() - begin
    file.seek(begin)
    return file.read(size)


def _string(file: BinaryIO, opcode: pickletools.OpcodeInfo, begin: int) -> bytes:
    """The opcode of a byte string with its argument, or of the persistent id that stands for it."""
    form = _STRINGS[opcode.name]
    length = file.read(struct.calcsize(form))
    (size,) = struct.unpack(form, length)
    if size < _LARGE:
        return opcode.code.encode("latin1") + length + file.read(max(size, 0))

    place = f"{file.tell() - begin} {size} {int('UNICODE' in opcode.name)}".encode()
    _skip(file, size)
    return pickle.SHORT_BINSTRING + bytes([len(place)]) + place + pickle.BINPERSID


def _outline(file: BinaryIO) -> bytes:
    """The pickle that begins here in `file` (seekable), with persistent ids ("begin size text") for
    large byte strings.

    Raises:
        pickle.UnpicklingError: an opcode that has no business in it. EOFError: the file ends before
            the pickle does.
    """
    begin = file.tell()
    copied = io.BytesIO()
    while copied.tell() < _MOST:
        code = file.read(1).decode("latin1")
        opcode = _OPCODES.get(code)
        if opcode is None or opcode.name in _REFUSED:
            if not code:
                raise EOFError("the pickle ends early")
            raise pickle.UnpicklingError(f"opcode {code!r}")

        if opcode.name in _STRINGS:
            copied.write(_string(file, opcode, begin))
        elif opcode.name == "FRAME":
            _skip(file, 8)  # its length, no longer right; frames may be left out
        else:
            copied.write(code.encode("latin1") + _copy(file, opcode))
        if opcode.name == "STOP":
            return copied.getvalue()
    raise pickle.UnpicklingError(f"over {_MOST} bytes beside the samples")


def _left(place: str) -> Left:
    """What the persistent id `place` stands for."""
    begin, size, text = map(int, place.split())
    return Left(begin, size, bool(text))
