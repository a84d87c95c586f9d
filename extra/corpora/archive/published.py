"""What is published of MusicNet: its files and how to get them, its splits, and who composed what.

Reference: Thickstun, Harchaoui, Kakade (2017), "Learning features of music from scratch"; Zenodo
record 5120004 (CC BY 4.0).
"""

import csv
import dataclasses
import io
import os
import reprlib
from pathlib import Path

from cplxnet.progress import show

from .download import DownloadError, fault_of, fetch
from .errors import ArchiveError, unreadable_named
from .labels import check_size


@dataclasses.dataclass(frozen=True)
class Remote:
    """A published file.

    Attributes:
        address: where it lies.
        name: its local name.
        size: in bytes; None: unknown.
        md5: hexadecimal; None: not checked.
        most: bytes that are taken of it where its size is unknown.
    """

    address: str
    name: str
    size: int | None
    md5: str | None
    most: int = 1 << 36


_RECORD = "https://zenodo.org/records/5120004/files"
ARCHIVE = Remote(
    f"{_RECORD}/musicnet.tar.gz?download=1",
    "musicnet.tar.gz",
    11_097_394_998,
    "844764911fa0d5b97c97da944a057590",
)
METADATA = Remote(
    f"{_RECORD}/musicnet_metadata.csv?download=1",
    "musicnet_metadata.csv",
    None,
    "1caef62cee9c875235e62aac368b49d8",
    most=1 << 20,
)

# Trabelsi et al. (2018), as Nazarov and Burnaev (2020): the archive's own test_data has 10, of
# which 7 train here.
_TEST = frozenset({2303, 2382, 1819})
_VALID = frozenset({2131, 2384, 1792, 2514, 2567, 1876})
EXPECTED = {"train": 321, "valid": 6, "test": 3}  # recordings of MusicNet in each
TEXTS = ("composer", "composition", "movement", "ensemble")


def split_of(number: int) -> str:
    """The split of recording `number`: test or valid by its id, train for any other."""
    if number in _TEST:
        return "test"
    return "valid" if number in _VALID else "train"


def obtain(
    where: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] = "data",
    *,
    check: bool = True,
) -> Path:
    """A path to build from.

    Args:
        where: None: the published archive, downloaded into `data`; an http(s) address of the same
            file (a mirror); or a path to the archive, the unpacked folder, a musicnet.h5 or a
            musicnet.npz.
        data: the folder for what is downloaded.
        check: hold a file called musicnet.tar.gz to the published size and md5. False: for an
            archive of your own.

    Raises:
        FileNotFoundError, DownloadError, DiskFullError.
    """
    remote = ARCHIVE if check else dataclasses.replace(ARCHIVE, size=None, md5=None)
    return _obtain(remote, remote.address if where is None else os.fspath(where), Path(data))


def obtain_metadata(
    source: str | os.PathLike[str],
    where: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] = "data",
    *,
    check: bool = True,
) -> Path | None:
    """The path of musicnet_metadata.csv, which names composers and movements.

    Args:
        source: what is built from; the file may lie beside or inside it.
        where: a path or an address; None: beside or inside `source`, in `data`, else downloaded.
        data: the folder for what is downloaded.
        check: hold the file to the published md5.

    Returns:
        None, with a notice, where the file lies nowhere and cannot be downloaded: the music is the
        same without it.

    Raises:
        ArchiveError: `where` is a folder. FileNotFoundError, DownloadError, DiskFullError: of the
            file `where`.
    """
    remote = METADATA if check else dataclasses.replace(METADATA, size=None, md5=None)
    if where is not None:
        path = _obtain(remote, os.fspath(where), Path(data))
        if not path.is_file():
            raise ArchiveError(f"{path}: expected {remote.name}, got a folder")
        return path

    source = Path(source)
    for folder in (source, source.parent, Path(data)):
        if (folder / remote.name).is_file():
            return folder / remote.name

    try:
        return _fetch(remote, remote.address, Path(data), retries=1)
    except DownloadError as error:
        show(f"notice: composers and movements stay empty, since {remote.name} is missing: {error}")
        return None


def _fetch(remote: Remote, address: str, data: Path, *, retries: int = 5) -> Path:
    path = data / remote.name
    return fetch(address, path, size=remote.size, md5=remote.md5, most=remote.most, retries=retries)


def _obtain(remote: Remote, where: str, data: Path) -> Path:
    """The file at the address `where`, fetched into `data`, or the path `where`."""
    if where.lower().startswith(("http://", "https://")):
        return _fetch(remote, where, data)

    path = Path(where).expanduser()
    if not path.exists():
        raise FileNotFoundError(
            f"expected MusicNet at {path}, got nothing there; try a path, an address, or neither"
        )
    if path.is_file() and path.name == remote.name:
        fault = fault_of(path, size=remote.size, md5=remote.md5)
        if fault is not None:
            raise DownloadError(
                f"{path}: {fault}; fetch it again, or try check=False (--no-check) if it is a file "
                "of your own"
            )
    return path


def read_metadata(path: Path) -> dict[int, dict[str, str]]:
    """Recording id -> {composer, composition, movement, ensemble}, of the file
    musicnet_metadata.csv at `path`.

    Raises:
        ArchiveError: no such column, an id that is no number or comes twice; the text names file,
            line and value.
    """
    check_size(path.stat().st_size, path.name)
    with unreadable_named(path.name, "a CSV file of UTF-8 text", UnicodeDecodeError, csv.Error):
        lines = csv.DictReader(io.StringIO(path.read_text("utf-8-sig"), newline=""))
        rows = [(f"{path.name}, line {lines.line_num}", row) for row in lines]

    missing = [name for name in ("id", *TEXTS) if name not in (lines.fieldnames or ())]
    if missing:
        raise ArchiveError(
            f"{path.name}, line 1: expected columns id, {', '.join(TEXTS)}, "
            f"got no {', '.join(missing)}"
        )

    texts: dict[int, dict[str, str]] = {}
    for place, row in rows:
        if not (row["id"] or "").strip().isdecimal():
            raise ArchiveError(f"{place}: expected a number in id, got {reprlib.repr(row['id'])}")
        number = int(row["id"])
        if number in texts:
            raise ArchiveError(f"{place}: expected each recording once, got {number} again")
        texts[number] = {name: (row[name] or "").strip() for name in TEXTS}
    return texts
