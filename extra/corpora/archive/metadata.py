"""Who composed what: `musicnet_metadata.csv`, one row a recording."""

import csv
import io
from pathlib import Path

from .faults import ArchiveError

TEXTS = ("composer", "composition", "movement", "ensemble")


def read(path: Path) -> dict[int, dict[str, str]]:
    """Recording id -> {composer, composition, movement, ensemble}.

    Raises
    ------
    ArchiveError: no such column, an id that is no number or comes twice; the text names file, line and value.
    """
    try:
        lines = csv.DictReader(io.StringIO(path.read_text("utf-8-sig"), newline=""))
    except UnicodeDecodeError as error:
        raise ArchiveError(f"{path.name}: expected UTF-8 text, got {error}") from None
    missing = [name for name in ("id", *TEXTS) if name not in (lines.fieldnames or ())]
    if missing:
        raise ArchiveError(
            f"{path.name}, line 1: expected columns id, {', '.join(TEXTS)}, got no {', '.join(missing)}"
        )
    found: dict[int, dict[str, str]] = {}
    for row in lines:
        place = f"{path.name}, line {lines.line_num}"
        if not (row["id"] or "").strip().isdecimal():
            raise ArchiveError(f"{place}: expected a number in id, got {row['id']!r}")
        number = int(row["id"])
        if number in found:
            raise ArchiveError(f"{place}: expected each recording once, got {number} again")
        found[number] = {name: (row[name] or "").strip() for name in TEXTS}
    return found
