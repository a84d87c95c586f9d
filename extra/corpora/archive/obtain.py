"""The archive and its metadata, from the published address, a mirror, or a place on this machine."""

import os
from pathlib import Path

from .download import DownloadError, fault_of, fetch
from .faults import ArchiveError
from .published import ARCHIVE, METADATA, Remote


def _is_address(where: str) -> bool:
    return where.lower().startswith(("http://", "https://"))


def _obtain(remote: Remote, where: str, data: Path) -> Path:
    if _is_address(where):
        return fetch(where, data / remote.name, size=remote.size, md5=remote.md5)
    path = Path(where).expanduser()
    if not path.exists():
        raise FileNotFoundError(
            f"expected MusicNet at {path}, got nothing there; try a path, an address, or neither"
        )
    if (
        path.is_file()
        and path.name == remote.name
        and (fault := fault_of(path, size=remote.size, md5=remote.md5))
    ):
        raise DownloadError(
            f"{path}: {fault}; fetch it again, or pass check=False to use it all the same"
        )
    return path


def obtain(
    where: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] = "data",
    *,
    check: bool = True,
) -> Path:
    """A path to build from.

    Parameters
    ----------
    where: None: the published archive, downloaded into `data`; an http(s) address of the same file (a mirror); or a
        path to the archive, the unpacked folder, a musicnet.h5 or a musicnet.npz.
    check: hold a file called musicnet.tar.gz to the published size and md5. Turn off for an archive of your own.

    Raises
    ------
    FileNotFoundError, DownloadError, DiskFullError.
    """
    remote = ARCHIVE if check else Remote(ARCHIVE.address, ARCHIVE.name, None, None)
    return _obtain(remote, os.fspath(where) if where is not None else remote.address, Path(data))


def obtain_metadata(
    source: str | os.PathLike[str],
    where: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] = "data",
    *,
    check: bool = True,
) -> Path:
    """Path of musicnet_metadata.csv: at `where` (path or address), else beside or inside `source`, else downloaded.

    Raises as `obtain`; ArchiveError where `where` is a folder.
    """
    remote = METADATA if check else Remote(METADATA.address, METADATA.name, None, None)
    if where is None:
        source = Path(source)
        for folder in (source, source.parent, Path(data)):
            if folder.is_dir() and (folder / remote.name).is_file():
                return folder / remote.name
    found = _obtain(remote, os.fspath(where) if where is not None else remote.address, Path(data))
    if not found.is_file():
        raise ArchiveError(f"{found}: expected {remote.name}, got a folder")
    return found
