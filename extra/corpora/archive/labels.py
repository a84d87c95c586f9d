"""Label tables, whatever they came in: CSV text, HDF5 columns or intervals; checked and brought into one order.

The same notes give the same table: rows sorted by all columns, exact copies once, notes of no length left out.
"""

import csv
import io
import math
from collections.abc import Iterable

import numpy as np

from cplxnet.musicnet.recordings import HIGHEST_NOTE, LABELS, LOWEST_NOTE

from .faults import ArchiveError

COLUMNS = LABELS.names or ()
_ALIASES = {"note_id": "note"}
_WHOLE = ("start_time", "end_time", "instrument", "note")
_BEATS = ("start_beat", "end_beat")
_LATEST = 2**40  # samples, 288 days: beyond any recording and safely within int64


def _whole(value: object) -> int:
    if isinstance(value, str | bytes):
        return int(value)
    number = int(value)  # type: ignore[call-overload]
    if number != value:
        raise ValueError
    return number


def _finite(value: object) -> float:
    number = float(value)  # type: ignore[arg-type]
    if not math.isfinite(number):
        raise ValueError
    return number


def _field(name: str, value: object, place: str) -> object:
    try:
        if name in _WHOLE:
            return _whole(value)
        if name in _BEATS:
            return _finite(value)
    except (ValueError, TypeError, OverflowError):
        expected = "a whole number" if name in _WHOLE else "a finite number"
        raise ArchiveError(f"{place}: expected {expected} in {name}, got {value!r}") from None
    text = value if isinstance(value, bytes) else str(value).encode()
    if len(text) > LABELS["note_value"].itemsize:
        raise ArchiveError(
            f"{place}: expected a note_value of {LABELS['note_value'].itemsize} bytes, got {text!r}"
        )
    return text


def _row(values: Iterable[object], place: str) -> tuple[object, ...]:
    """One note's fields in the order of COLUMNS, checked."""
    row = tuple(_field(name, value, place) for name, value in zip(COLUMNS, values, strict=True))
    start, end, instrument, note = row[:4]
    if not 0 <= start <= _LATEST or not start <= end <= _LATEST:  # type: ignore[operator]
        raise ArchiveError(
            f"{place}: expected 0 <= start_time <= end_time, got start_time {start}, end_time {end}"
        )
    if not LOWEST_NOTE <= note <= HIGHEST_NOTE:  # type: ignore[operator]
        raise ArchiveError(
            f"{place}: expected a note in {LOWEST_NOTE}..{HIGHEST_NOTE}, got note {note}"
        )
    if not 1 <= instrument <= 128:  # type: ignore[operator]
        raise ArchiveError(
            f"{place}: expected an instrument in 1..128, got instrument {instrument}"
        )
    return row


def table(rows: Iterable[tuple[str, Iterable[object]]], where: str) -> tuple[np.ndarray, list[str]]:
    """The table (notes,) of dtype LABELS of `rows`, pairs of a place for errors and the fields; and notices.

    Raises
    ------
    ArchiveError: naming the place and the value: no number, a note outside 21..104, an end before its start; or no row.
    """
    checked = [_row(values, place) for place, values in rows]
    if not checked:
        raise ArchiveError(f"{where}: expected notes, got none")
    sounding = [row for row in checked if row[1] > row[0]]  # type: ignore[operator]
    notices = []
    if len(sounding) < len(checked):
        notices.append(f"{where}: {len(checked) - len(sounding)} notes of no length left out")
    unique = sorted(set(sounding))  # type: ignore[type-var]
    if len(unique) < len(sounding):
        notices.append(f"{where}: {len(sounding) - len(unique)} exact copies of notes left out")
    return np.array(unique, LABELS), notices


def from_csv(content: bytes, where: str) -> tuple[np.ndarray, list[str]]:
    """The labels of a CSV file with a header line; raises as `table`, naming the line, or for a missing column."""
    try:
        lines = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        header = [_ALIASES.get(name.strip(), name.strip()) for name in next(lines, [])]
        missing = [name for name in COLUMNS if name not in header]
        if missing:
            raise ArchiveError(
                f"{where}, line 1: expected columns {', '.join(COLUMNS)}, got no {', '.join(missing)}"
            )
        order = [header.index(name) for name in COLUMNS]
        rows = [(lines.line_num, line) for line in lines if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ArchiveError(f"{where}: expected CSV text, got {error}") from None
    for number, line in rows:
        if len(line) != len(header):
            raise ArchiveError(
                f"{where}, line {number}: expected {len(header)} fields, got {len(line)}: {line!r}"
            )
    return table(
        ((f"{where}, line {number}", [line[k] for k in order]) for number, line in rows), where
    )


def from_columns(columns: np.ndarray, where: str) -> tuple[np.ndarray, list[str]]:
    """The labels of a structured array, as old HDF5 files hold them (`note` or `note_id`); raises as `table`."""
    names = {_ALIASES.get(name, name): name for name in columns.dtype.names or ()}
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise ArchiveError(
            f"{where}: expected columns {', '.join(COLUMNS)}, got no {', '.join(missing)}"
        )
    rows = zip(*(columns[names[name]].tolist() for name in COLUMNS), strict=True)
    return table(((f"{where}, row {k}", row) for k, row in enumerate(rows)), where)


def clip(labels: np.ndarray, samples: int, where: str) -> tuple[np.ndarray, list[str]]:
    """`labels` without what lies past sample `samples`, the recording's end; and a notice that counts what was cut.

    Raises
    ------
    ArchiveError: over half of the notes begin past the end: other times, or another recording.
    """
    late, long = labels["start_time"] >= samples, labels["end_time"] > samples
    if 2 * int(late.sum()) > len(labels):
        row = labels[int(np.argmax(late))]
        raise ArchiveError(
            f"{where}: expected notes within {samples} samples, got {late.sum()} of {len(labels)} that begin later, "
            f"the first at {row['start_time']}; are these the labels of this recording, in samples at 44.1 kHz?"
        )
    if not long.any():
        return labels, []
    kept = labels[~late].copy()
    kept["end_time"] = np.minimum(kept["end_time"], samples)
    text = f"{where}: {int((long & ~late).sum())} notes clipped at the recording's end, {int(late.sum())} past it left out"
    return np.unique(kept), [text]
