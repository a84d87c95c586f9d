"""Fetch a large file over HTTP: resumed after a broken connection, checked, and never used unless
it is the right one.

`requests` with urllib3's `Retry` connects, repeats and waits; no well-kept library also resumes
(pooch does not).
"""

import hashlib
import os
import shutil
import warnings
from pathlib import Path

import requests
from tqdm.auto import tqdm
from urllib3.util import Retry

from .errors import NO_SPACE, DiskFullError

_BLOCK = 1 << 20
_BUSY = (429, 500, 502, 503, 504)  # may pass: try again; anything else from 400 on will not
_HEADERS = {"Accept-Encoding": "identity"}  # byte ranges of the file itself


class DownloadError(OSError):
    """A file could not be fetched, or is not the one that was asked for; the text names address and
    reason.
    """


class _Broken(Exception):
    """The connection ended early: what came is kept."""


def md5_of(path: Path) -> str:
    """The md5 of the file at `path`, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def fault_of(path: Path, *, size: int | None, md5: str | None) -> str | None:
    """What is wrong with the file at `path`, or None: its size first, which costs nothing, then its
    md5.
    """
    there = path.stat().st_size
    if size is not None and there != size:
        return f"expected {size} bytes, got {there}"
    if md5 is not None:
        md5_there = md5_of(path)
        if md5_there != md5:
            return f"expected md5 {md5}, got {md5_there}"
    return None


def _session(retries: int, backoff_s: float) -> requests.Session:
    retry = Retry(
        total=retries,
        backoff_factor=backoff_s,
        backoff_max=60,
        status_forcelist=_BUSY,
        raise_on_status=False,
    )
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, requests.adapters.HTTPAdapter(max_retries=retry))
    return session


def _beginning(response: requests.Response, done: int, address: str) -> int:
    """From which byte on `response` answers a request for those from `done` on."""
    if response.status_code == 206:
        content_range = response.headers.get("Content-Range", "")
        if not content_range.startswith(f"bytes {done}-"):
            raise DownloadError(
                f"{address}: expected bytes from {done} on, got Content-Range {content_range!r}; "
                "try a mirror"
            )
        return done
    if response.status_code == 200:  # a server that ignores Range sends the whole file
        return 0
    again = "busy, try again later" if response.status_code in _BUSY else "try another address"
    raise DownloadError(
        f"{address}: expected the file, got status {response.status_code} {response.reason}; "
        f"{again}"
    )


def _check_offer(
    response: requests.Response, begin: int, size: int | None, folder: Path, address: str
) -> int | None:
    """The size of the whole file as the server tells it; raises where it is another file or the
    disk too small.
    """
    length = response.headers.get("Content-Length")
    whole = begin + int(length) if length is not None else None
    if size is not None and whole is not None and whole != size:
        raise DownloadError(
            f"{address}: expected {size} bytes, the server offers {whole}; try another address"
        )
    free = shutil.disk_usage(folder).free
    if whole is not None and whole - begin > free:
        raise DiskFullError(
            f"{folder}: expected {whole - begin} bytes free, got {free}; make room and run again"
        )
    return whole


def _transfer(
    session: requests.Session, address: str, part: Path, size: int | None, timeout_s: float
) -> None:
    """Add to `part` what one connection brings. Raises _Broken where it ends early."""
    done = part.stat().st_size if part.exists() else 0
    headers = _HEADERS | ({"Range": f"bytes={done}-"} if done else {})
    try:
        with session.get(address, headers=headers, stream=True, timeout=timeout_s) as response:
            if response.status_code == 416:
                return  # nothing beyond `done`: whole, or of another file; the md5 will tell

            begin = _beginning(response, done, address)
            whole = _check_offer(response, begin, size, part.parent, address)
            bar = tqdm(
                desc=part.name.strip("."),
                total=whole,
                initial=begin,
                unit="B",
                unit_scale=True,
                unit_divisor=1024,
            )
            with bar, open(part, "r+b" if begin else "wb") as file:
                file.seek(begin)
                for block in response.iter_content(_BLOCK):
                    if size is not None and file.tell() + len(block) > size:
                        raise DownloadError(
                            f"{address}: expected {size} bytes, the server sends more; "
                            "try another address"
                        )
                    file.write(block)
                    bar.update(len(block))
    except (
        requests.ConnectionError,
        requests.Timeout,
        requests.exceptions.ChunkedEncodingError,
    ) as error:
        raise _Broken(str(error)) from error
    except requests.RequestException as error:
        raise DownloadError(f"{address}: {error}; try another address") from error
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise DiskFullError(
            f"{part.parent}: no space left; what came is kept in {part}: "
            "make room and run again to go on"
        ) from None
    if whole is not None and part.stat().st_size < whole:
        raise _Broken(f"{part.stat().st_size} of {whole} bytes")


def _complete(
    session: requests.Session, address: str, part: Path, size: int | None, timeout_s: float, n: int
) -> None:
    """Connect again and again until `part` is whole; gives up after `n` connections in a row that
    brought nothing.
    """
    idle = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            return _transfer(session, address, part, size, timeout_s)
        except _Broken as error:
            moved = part.exists() and part.stat().st_size > before
            idle = 0 if moved else idle + 1
            if idle >= n:
                raise DownloadError(
                    f"{address}: expected the file, the connection broke {idle} times in a row "
                    f"({error}); what came is kept in {part}: run again to go on, or give the path "
                    "of a copy of it"
                ) from error


def fetch(
    address: str,
    path: str | os.PathLike[str],
    *,
    size: int | None = None,
    md5: str | None = None,
    retries: int = 5,
    backoff_s: float = 1.0,
    timeout_s: float = 30.0,
) -> Path:
    """The file at `address`, at `path`: found there and right, or downloaded. Returns `path`.

    What arrives is kept in `.NAME.part` beside it until size and md5 are right, and only then
    renamed; after a broken connection, also in a later call, the download goes on where it ended.

    Args:
        address: http or https.
        path: where the file goes.
        size, md5: what the file must have; None: not checked.
        retries: connections in a row that may fail, or answer 429 or 5xx, before it gives up.
        backoff_s: waits of this many seconds times 1, 2, 4, ... between those.
        timeout_s: seconds of silence that end a connection.

    Raises:
        DownloadError: refused (404), busy for too long (503), broken for too long, or another file
            than asked for.
        DiskFullError: no room for it.
    """
    path = Path(path)
    if path.is_file():
        fault = fault_of(path, size=size, md5=md5)
        if fault is None:
            return path
        warnings.warn(f"{path}: {fault}; downloading it again", stacklevel=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    with _session(retries, backoff_s) as session:
        # a part of another file may lie there: then once more from the start
        for is_fresh in (not part.exists(), True):
            _complete(session, address, part, size, timeout_s, retries)
            fault = fault_of(part, size=size, md5=md5)
            if fault is None:
                os.replace(part, path)
                return path

            part.unlink()
            if is_fresh:
                break
    raise DownloadError(f"{address}: {fault}; nothing of it was kept, try another address")
