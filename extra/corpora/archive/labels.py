"""Label tables, whatever they came in: CSV text, HDF5 columns or intervals; checked and brought
into one order.

The same notes give the same table: rows sorted by all columns, exact copies once, notes of no
length left out. MusicNet's first release names its columns otherwise and counts measures; both are
understood here.
"""

import csv
import io
import math
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from cplxnet.musicnet.recordings import HIGHEST_NOTE, LABELS, LOWEST_NOTE
from cplxnet.musicnet.resample import SOURCE_HZ

from .errors import ArchiveError, short

COLUMNS = LABELS.names or ()
_REQUIRED = ("start_time", "end_time", "instrument", "note")
_BEATS = ("start_beat", "end_beat")
# Left out, a column is filled with these. Nothing that is trained or scored reads it.
_DEFAULTS: dict[str, object] = {"start_beat": 0.0, "end_beat": 0.0, "note_value": b""}
_ALIASES = {
    "note_id": "note",
    # MusicNet's first release
    "start_sample": "start_time",
    "end_sample": "end_time",
    "instrument_id": "instrument",
    "midi_note": "note",
}
_LATEST = 2**40  # samples, 288 days: beyond any recording and safely within int64
_MOST_NOTES = 100_000  # of a recording; MusicNet's richest has under 10 000
_LARGEST = 1 << 24  # bytes of a CSV file, which is in memory at once; MusicNet's largest has 0.5 MB
_CHORD = SOURCE_HZ // 4  # samples: notes that start farther apart are no chord


def table(rows: Iterable[tuple[str, Sequence[object]]], where: str) -> tuple[np.ndarray, list[str]]:
    """The labels as an array (notes,) of dtype LABELS, and notices of what was put right.

    Args:
        rows: a place for errors, and the fields of a note in the order of COLUMNS.
        where: the table's name, for errors.

    Raises:
        ArchiveError: naming the place and the value: no number, a note outside 21..104, an end
            before its start; or there is no row.
    """
    checked = [_row(values, place) for place, values in rows]
    if not checked:
        raise ArchiveError(f"{where}: expected notes, got none")

    notices = []
    sounding = [row for row in checked if row[1] > row[0]]
    if len(sounding) < len(checked):
        notices.append(f"{where}: {len(checked) - len(sounding)} notes of no length left out")

    unique = sorted(set(sounding))
    if len(unique) < len(sounding):
        notices.append(f"{where}: {len(sounding) - len(unique)} exact copies of notes left out")
    return np.array(unique, LABELS), notices


def check_size(n_bytes: int, where: str) -> None:
    """Raise ArchiveError for a CSV file too large to be read."""
    if n_bytes > _LARGEST:
        raise ArchiveError(
            f"{where}: expected a CSV file of at most {_LARGEST} bytes, got {n_bytes}"
        )


def check_count(n_notes: int, where: str) -> None:
    """Raise ArchiveError for more notes than a recording can have."""
    if n_notes > _MOST_NOTES:
        raise ArchiveError(f"{where}: expected at most {_MOST_NOTES} notes, got {n_notes}")


def from_csv(content: bytes, where: str) -> tuple[np.ndarray, list[str]]:
    """The labels of a CSV file with a header line; raises as `table`, naming the line, or for a
    missing column.
    """
    check_count(max(content.count(b"\n"), content.count(b"\r")), where)
    try:
        lines = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        header = [name.strip() for name in next(lines, [])]
        rows = [(lines.line_num, line) for line in lines if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ArchiveError(f"{where}: expected CSV text, got {error}") from None

    names, notices = _columns(header, f"{where}, line 1")
    for number, line in rows:
        if len(line) != len(header):
            raise ArchiveError(
                f"{where}, line {number}: expected {len(header)} fields, "
                f"got {len(line)}: {reprlib.repr(line)}"
            )

    place = {name: header.index(name) for name in names.values()}
    labels, told = table(
        (
            (
                f"{where}, line {number}",
                _fields({name: line[place[own]] for name, own in names.items()}),
            )
            for number, line in rows
        ),
        where,
    )
    return labels, notices + told


def from_columns(columns: np.ndarray, where: str) -> tuple[np.ndarray, list[str]]:
    """The labels of a structured array, as old HDF5 files hold them; raises as `table`, or for a
    missing column.
    """
    names, notices = _columns(columns.dtype.names or (), where)
    values = {name: columns[own].tolist() for name, own in names.items()}

    labels, told = table(
        (
            (f"{where}, row {k}", _fields({name: column[k] for name, column in values.items()}))
            for k in range(len(columns))
        ),
        where,
    )
    return labels, notices + told


def from_intervals(
    intervals: Sequence[tuple[Any, Any, Any]], where: str
) -> tuple[np.ndarray, list[str]]:
    """The labels of intervals (start, end, fields), as musicnet.npz holds them.

    Their fields are (instrument, note, start_beat, end_beat, note_value), or, in the first release,
    (instrument, note, measure, beat, note_value). Measures are told from beats by being whole
    numbers which notes far apart share.

    Raises:
        ArchiveError: as `table`, or for other fields.
    """
    check_count(len(intervals), where)
    rows = []
    for k, (start, end, fields) in enumerate(intervals):
        if not isinstance(fields, (list, tuple)) or len(fields) != 5:
            raise ArchiveError(
                f"{where}: expected (instrument, note, start_beat, end_beat, note_value) at "
                f"[{start}, {end}), got {reprlib.repr(fields)}"
            )
        value = fields[4].encode("latin1") if isinstance(fields[4], str) else fields[4]
        rows.append((f"{where}, interval {k}", [start, end, *fields[:4], value]))

    notices = []
    if _are_measures(rows):
        notices.append(_without(where, _BEATS, "got measures"))
        rows = [(place, [*row[:4], 0.0, 0.0, row[6]]) for place, row in rows]
    labels, told = table(rows, where)
    return labels, notices + told


def clip(labels: np.ndarray, samples: int, where: str) -> tuple[np.ndarray, list[str]]:
    """`labels` without what lies past sample `samples`, the recording's end, and a notice that
    counts what was cut.

    Raises:
        ArchiveError: over half of the notes begin past the end: other times, or another recording.
    """
    late = labels["start_time"] >= samples
    long = labels["end_time"] > samples
    if 2 * int(late.sum()) > len(labels):
        row = labels[int(np.argmax(late))]
        raise ArchiveError(
            f"{where}: expected notes within {samples} samples, got {late.sum()} of {len(labels)} "
            f"that begin later, the first at {row['start_time']}; are these the labels of this "
            "recording, in samples at 44.1 kHz?"
        )
    if not long.any():
        return labels, []

    kept = labels[~late].copy()
    kept["end_time"] = np.minimum(kept["end_time"], samples)
    notice = (
        f"{where}: {int((long & ~late).sum())} notes clipped at the recording's end, "
        f"{int(late.sum())} past it left out"
    )
    return np.unique(kept), [notice]


def _columns(names: Sequence[str], where: str) -> tuple[dict[str, str], list[str]]:
    """{column: its name in the file}, of those in COLUMNS, and notices of those that are missing.

    Raises:
        ArchiveError: a column is missing that a recording needs.
    """
    own = {_ALIASES.get(name, name): name for name in reversed(names)}
    columns = {name: own[name] for name in COLUMNS if name in own}

    missing = [name for name in COLUMNS if name not in columns]
    needed = [name for name in missing if name in _REQUIRED]
    if needed:
        raise ArchiveError(
            f"{where}: expected columns {', '.join(COLUMNS)}, got no {', '.join(needed)}"
        )
    if not missing:
        return columns, []
    return columns, [_without(where, missing, f"got {short(', '.join(names))}")]


def _without(where: str, columns: Iterable[str], got: str) -> str:
    return f"{where}: labels without {', '.join(columns)}, which stay empty ({got})"


def _fields(values: Mapping[str, object]) -> list[object]:
    """A note's fields in the order of COLUMNS."""
    return [values.get(name, _DEFAULTS.get(name)) for name in COLUMNS]


def _are_measures(rows: Sequence[tuple[str, Sequence[Any]]]) -> bool:
    """Whether the fifth fields of rows (start, end, instrument, note, measure or beat, ...) count
    measures.
    """
    earliest: dict[float, float] = {}
    latest: dict[float, float] = {}
    for _, row in rows:
        try:
            start = float(row[0])
            count = float(row[4])
        except (TypeError, ValueError):
            return False  # `table` names it
        if not count.is_integer():
            return False
        earliest[count] = min(start, earliest.get(count, start))
        latest[count] = max(start, latest.get(count, start))
    return any(latest[count] - earliest[count] > _CHORD for count in earliest)


def _row(values: Sequence[object], place: str) -> tuple[Any, ...]:
    """One note's fields in the order of COLUMNS, checked."""
    row = tuple(_field(name, value, place) for name, value in zip(COLUMNS, values, strict=True))
    start, end, instrument, note = row[:4]
    if not 0 <= start <= _LATEST or not start <= end <= _LATEST:
        raise ArchiveError(
            f"{place}: expected 0 <= start_time <= end_time, got start_time {start}, end_time {end}"
        )
    if not LOWEST_NOTE <= note <= HIGHEST_NOTE:
        raise ArchiveError(
            f"{place}: expected a note in {LOWEST_NOTE}..{HIGHEST_NOTE}, got note {note}"
        )
    if not 1 <= instrument <= 128:
        raise ArchiveError(
            f"{place}: expected an instrument in 1..128, got instrument {instrument}"
        )
    return row


def _field(name: str, value: object, place: str) -> Any:
    """One field as a value of its column's type."""
    try:
        if name in _REQUIRED:
            return _whole(value)
        if name in _BEATS:
            return _finite(value)
    except (ValueError, TypeError, OverflowError):
        expected = "a whole number" if name in _REQUIRED else "a finite number"
        raise ArchiveError(
            f"{place}: expected {expected} in {name}, got {reprlib.repr(value)}"
        ) from None

    text = value if isinstance(value, bytes) else str(value).encode()
    longest = LABELS["note_value"].itemsize
    if len(text) > longest:
        raise ArchiveError(
            f"{place}: expected a note_value of {longest} bytes, got {reprlib.repr(text)}"
        )
    return text


def _whole(value: Any) -> int:
    number = int(value)
    if not isinstance(value, str | bytes) and number != value:
        raise ValueError
    return number


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number
