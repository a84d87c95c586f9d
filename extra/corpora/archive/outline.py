"""A pickle without its large byte strings, which stay where they are in the file: a recording's samples need no memory.

A pickle's opcodes are copied one by one; in place of a string of 64 KiB or more comes a persistent id, its place.

Reference: Python's `pickletools`, which describes every opcode and its argument.
"""

import codecs
import io
import pickle
import pickletools
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

_LARGE = 1 << 16  # bytes
_MOST = 1 << 26  # bytes of the copy; a recording's interval tree has under 1 MB
_BLOCK = 1 << 20
_STRINGS = {  # and how their length is told
    "BINSTRING": "<i",
    "BINBYTES": "<I",
    "BINBYTES8": "<Q",
    "BYTEARRAY8": "<Q",
    "BINUNICODE": "<I",  # as which Python 3 writes bytes in Python 2's protocols
    "BINUNICODE8": "<Q",
}
_OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}
_REFUSED = {"PERSID", "BINPERSID"}  # ours alone


class Left(NamedTuple):
    """`size` bytes left where they are, `begin` bytes from the pickle's beginning; if `text`, latin-1 as UTF-8."""

    begin: int
    size: int
    text: bool

    def blocks(self, file: BinaryIO) -> Iterator[bytes]:
        """The bytes in blocks, `file` being where the pickle begins."""
        file.seek(file.tell() + self.begin)
        left, decoder = self.size, codecs.getincrementaldecoder("utf-8")()
        while left and (raw := file.read(min(left, _BLOCK))):
            left -= len(raw)
            yield decoder.decode(raw).encode("latin1") if self.text else raw


def _skip(file: BinaryIO, size: int) -> None:
    while size and (read := file.read(min(size, _BLOCK))):
        size -= len(read)
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
    told = file.read(struct.calcsize(form))
    (size,) = struct.unpack(form, told)
    if size < _LARGE:
        return opcode.code.encode("latin1") + told + file.read(max(size, 0))
    place = f"{file.tell() - begin} {size} {int('UNICODE' in opcode.name)}".encode()
    _skip(file, size)
    return pickle.SHORT_BINSTRING + bytes([len(place)]) + place + pickle.BINPERSID


def outline(file: BinaryIO) -> bytes:
    """The pickle that begins here in `file` (seekable), with persistent ids ("begin size text") for large byte strings.

    Raises
    ------
    pickle.UnpicklingError: an opcode that has no business in it; EOFError: the end before the pickle's.
    """
    begin, copied = file.tell(), io.BytesIO()
    while copied.tell() < _MOST:
        code = file.read(1).decode("latin1")
        opcode = _OPCODES.get(code)
        if opcode is None or opcode.name in _REFUSED:
            raise (
                EOFError("the pickle ends early")
                if not code
                else pickle.UnpicklingError(f"opcode {code!r}")
            )
        if opcode.name in _STRINGS:
            copied.write(_string(file, opcode, begin))
        elif opcode.name == "FRAME":
            _skip(file, 8)  # its length, no longer right; frames may be left out
        else:
            copied.write(code.encode("latin1") + _copy(file, opcode))
        if opcode.name == "STOP":
            return copied.getvalue()
    raise pickle.UnpicklingError(f"over {_MOST} bytes beside the samples")


def left(place: str) -> Left:
    """What the persistent id `place` stands for."""
    begin, size, text = map(int, place.split())
    return Left(begin, size, bool(text))
