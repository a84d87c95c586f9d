"""MusicNet's npz file as Python 2.7, numpy 1.11 and intervaltree 2.1.0 wrote it, opcode by opcode.

There is no Python 2 here, so this writes what their published sources say: `pickle.py` of Python
2.7 (protocol 2, which numpy's `format.write_array` asks for), `ndarray.__reduce__` and
`dtype.__reduce__` of numpy 1.11, and the two `__reduce__` of intervaltree 2.1.0: `IntervalTree,
(sorted(self.all_intervals),)` and `Interval, (begin, end, data)`.
"""

import io
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

_HEADER = b"{'descr': '|O', 'fortran_order': False, 'shape': (2,), }"


class Pickler:
    """What Python 2's Pickler keeps while it writes: the stream and how many objects it has
    numbered.
    """

    def __init__(self) -> None:
        self.stream, self.count, self.classes = io.BytesIO(b"\x80\x02"), 0, {}
        self.stream.seek(2)

    def put(self) -> None:
        self.stream.write(
            b"q" + bytes([self.count]) if self.count < 256 else b"r" + struct.pack("<I", self.count)
        )
        self.count += 1

    def save_class(self, module: str, name: str) -> None:
        if (module, name) in self.classes:
            k = self.classes[module, name]
            self.stream.write(b"h" + bytes([k]) if k < 256 else b"j" + struct.pack("<I", k))
            return
        self.stream.write(f"c{module}\n{name}\n".encode())
        self.classes[module, name] = self.count
        self.put()

    def save_str(self, text: bytes) -> None:
        short = len(text) < 256
        self.stream.write(
            (b"U" + bytes([len(text)]) if short else b"T" + struct.pack("<i", len(text))) + text
        )
        self.put()

    def save_int(self, value: int) -> None:
        if 0 <= value <= 0xFF:
            self.stream.write(b"K" + bytes([value]))
        elif 0 <= value <= 0xFFFF:
            self.stream.write(b"M" + struct.pack("<H", value))
        else:
            self.stream.write(b"J" + struct.pack("<i", value))

    def save_tuple(self, values: tuple) -> None:
        if not values:
            self.stream.write(b")")
            return
        if len(values) > 3:
            self.stream.write(b"(")
        for value in values:
            self.save(value)
        self.stream.write(b"t" if len(values) > 3 else bytes([0x84 + len(values)]))
        self.put()

    def save_list(self, items: Iterable[Any]) -> None:
        items = list(items)
        self.stream.write(b"]")
        self.put()
        for begin in range(0, len(items), 1000):
            batch = items[begin : begin + 1000]
            if len(batch) > 1:
                self.stream.write(b"(")
            for item in batch:
                self.save(item)
            self.stream.write(b"e" if len(batch) > 1 else b"a")

    def save_reduce(
        self, module: str, name: str, arguments: tuple, state: tuple | None = None
    ) -> None:
        self.save_class(module, name)
        self.save_tuple(arguments)
        self.stream.write(b"R")
        self.put()
        if state is not None:
            self.save_tuple(state)
            self.stream.write(b"b")

    def save(self, value: Any) -> None:
        if value is None or isinstance(value, bool):
            self.stream.write({None: b"N", True: b"\x88", False: b"\x89"}[value])
        elif isinstance(value, int):
            self.save_int(value)
        elif isinstance(value, float):
            self.stream.write(b"G" + struct.pack(">d", value))
        elif isinstance(value, (bytes, tuple, list)):
            {bytes: self.save_str, tuple: self.save_tuple, list: self.save_list}[type(value)](value)
        elif isinstance(value, np.generic):
            raw = value.tobytes()
            self.save_reduce(
                "numpy.core.multiarray", "scalar", (Dtype(value.dtype.str[1:], "<", 0), raw)
            )
        else:
            value.save(self)


class Dtype:
    """numpy.dtype: ('f4', 0, 1), then its byte order and, for objects, 63 as flags."""

    def __init__(self, code: str, order: str, flags: int) -> None:
        self.code, self.order, self.flags = code.encode(), order.encode(), flags

    def save(self, to: Pickler) -> None:
        state = (3, self.order, None, None, None, -1, -1, self.flags)
        to.save_reduce("numpy", "dtype", (self.code, 0, 1), state)


class Class:
    """A class or function by name."""

    def __init__(self, module: str, name: str) -> None:
        self.place = module, name

    def save(self, to: Pickler) -> None:
        to.save_class(*self.place)


class Array:
    """numpy.ndarray of one dimension."""

    def __init__(self, dtype: Dtype, length: int, content: Any) -> None:
        self.state = (1, (length,), dtype, False, content)

    def save(self, to: Pickler) -> None:
        arguments = (Class("numpy", "ndarray"), (0,), b"b")
        to.save_reduce("numpy.core.multiarray", "_reconstruct", arguments, self.state)


class Interval:
    """intervaltree.interval.Interval of intervaltree 2.1.0."""

    def __init__(self, begin: int, end: int, data: tuple) -> None:
        self.fields = (begin, end, data)

    def save(self, to: Pickler) -> None:
        to.save_reduce("intervaltree.interval", "Interval", self.fields)


class IntervalTree:
    """intervaltree.intervaltree.IntervalTree of intervaltree 2.1.0."""

    def __init__(self, intervals: Iterable[Interval]) -> None:
        self.intervals = sorted(intervals, key=lambda interval: interval.fields)

    def save(self, to: Pickler) -> None:
        to.save_reduce("intervaltree.intervaltree", "IntervalTree", (self.intervals,))


def dumps(value: Any) -> bytes:
    """`value` as Python 2 pickles it."""
    pickler = Pickler()
    pickler.save(value)
    return pickler.stream.getvalue() + b"."


def entry(samples: np.ndarray, notes: list[tuple]) -> bytes:
    """One recording's .npy member: an array of two objects, samples and interval tree."""
    tree = IntervalTree(
        Interval(start, end, (*rest[:-1], rest[-1].encode())) for start, end, *rest in notes
    )
    audio = Array(Dtype("f4", "<", 0), len(samples), samples.astype("<f4").tobytes())
    header = _HEADER.ljust(118 - len(_HEADER) % 2)[:117] + b"\n"
    magic = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header))
    return magic + header + dumps(Array(Dtype("O8", "|", 63), 2, [audio, tree]))


def npz(path: Path, recordings: dict[int, tuple[np.ndarray, list[tuple]]]) -> Path:
    """The archive of `recordings`, number -> (samples, notes), stored without compression as
    np.savez does.
    """
    with zipfile.ZipFile(path, "w") as file:
        for number, (samples, notes) in recordings.items():
            file.writestr(f"{number}.npy", entry(samples, notes))
    return path
