"""What is wrong with an archive, and what was put right on the way."""

import dataclasses
import errno
from collections.abc import Sequence

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)  # what the system answers where a disk or a quota is full


class ArchiveError(ValueError):
    """The archive would poison an experiment; a line a fault, each naming member, line and value."""


class DiskFullError(OSError):
    """No space left; the text says what was kept and how to go on."""


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a worker saw of one piece of a recording and did with it; `staged` is the file's name, "" if it failed."""

    number: int
    kind: str  # "audio" or "labels"
    member: str
    staged: str = ""
    fault: str = ""
    notices: tuple[str, ...] = ()


def _unpaired(seen: Sequence[Seen], places: dict[tuple[int, str], list[str]]) -> list[str]:
    found = []
    for number in sorted({one.number for one in seen}):
        for kind, other in (("audio", "labels"), ("labels", "audio")):
            if (number, kind) in places and (number, other) not in places:
                found.append(
                    f"{places[number, kind][0]}: expected {other} of recording {number} too, got none"
                )
    return found


def check(source: str, seen: Sequence[Seen]) -> None:
    """Raise ArchiveError with every fault of `seen`: pieces that failed, came twice, or lack their other half."""
    places: dict[tuple[int, str], list[str]] = {}
    for one in seen:
        places.setdefault((one.number, one.kind), []).append(one.member)
    lines = [one.fault for one in seen if one.fault]
    for (number, kind), members in sorted(places.items()):
        if len(members) > 1:
            lines.append(
                f"{', '.join(members)}: expected one {kind} of recording {number}, got {len(members)}"
            )
    lines += _unpaired(seen, places)
    if not seen:
        lines.append(
            "expected recordings (train_data/*.wav with train_labels/*.csv, or groups id_NNNN), got none"
        )
    if lines:
        raise ArchiveError(
            f"{source}: {len(lines)} fault{'s' * (len(lines) > 1)}\n  " + "\n  ".join(lines)
        )
