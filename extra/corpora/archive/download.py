"""Fetch a large file over HTTP: resumed after a broken connection, checked, and never used unless
it is the right one.

`requests` with urllib3's `Retry` connects, repeats and waits; no well-kept library also resumes
(pooch does not).
"""

import dataclasses
import hashlib
import os
import shutil
import warnings
from pathlib import Path

import requests
from urllib3.util import Retry

from cplxnet.files import move
from cplxnet.progress import bar

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


@dataclasses.dataclass(frozen=True)
class _Download:
    """The file at `address` on its way to `part`: `size` bytes, or at most `most`."""

    session: requests.Session
    address: str
    part: Path
    size: int | None
    most: int
    timeout_s: float

    def complete(self, n: int) -> None:
        """Connect again and again until `part` is whole; gives up after `n` connections in a row
        that brought nothing.
        """
        idle = 0
        while True:
            before = self._done()
            try:
                return self._connect()
            except _Broken as error:
                idle = 0 if self._done() > before else idle + 1
                if idle >= n:
                    raise DownloadError(
                        f"{self.address}: expected the file, the connection broke {idle} times in "
                        f"a row ({error}); what came is kept in {self.part}: run again to go on, "
                        "or give the path of a copy of it"
                    ) from error

    def _done(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _connect(self) -> None:
        """Add to `part` what one connection brings. Raises _Broken where it ends early."""
        done = self._done()
        headers = _HEADERS | ({"Range": f"bytes={done}-"} if done else {})
        broken = (
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
        )
        try:
            with self.session.get(
                self.address, headers=headers, stream=True, timeout=self.timeout_s
            ) as response:
                if response.status_code == 416:
                    return  # nothing beyond `done`: whole, or of another file; the md5 will tell
                begin = self._beginning(response, done)
                whole = self._check_offer(response, begin)
                self._receive(response, begin, whole)
        except broken as error:
            raise _Broken(str(error)) from error
        except requests.RequestException as error:
            raise DownloadError(f"{self.address}: {error}; try another address") from error
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            raise DiskFullError(
                f"{self.part.parent}: no space left; what came is kept in {self.part}: "
                "make room and run again to go on"
            ) from None
        if whole is not None and self._done() < whole:
            raise _Broken(f"{self._done()} of {whole} bytes")

    def _beginning(self, response: requests.Response, done: int) -> int:
        """From which byte on `response` answers a request for those from `done` on."""
        if response.status_code == 206:
            content_range = response.headers.get("Content-Range", "")
            if not content_range.startswith(f"bytes {done}-"):
                raise DownloadError(
                    f"{self.address}: expected bytes from {done} on, got Content-Range "
                    f"{content_range!r}; try a mirror"
                )
            return done
        if response.status_code == 200:  # a server that ignores Range sends the whole file
            return 0
        again = "busy, try again later" if response.status_code in _BUSY else "try another address"
        raise DownloadError(
            f"{self.address}: expected the file, got status {response.status_code} "
            f"{response.reason}; {again}"
        )

    def _check_offer(self, response: requests.Response, begin: int) -> int | None:
        """The size of the whole file, as the server tells it."""
        length = response.headers.get("Content-Length")
        if length is None:
            return None
        whole = begin + int(length)
        if whole > self.most or self.size not in (None, whole):
            raise self._other_size(f"offers {whole}")

        free = shutil.disk_usage(self.part.parent).free
        if whole - begin > free:
            raise DiskFullError(
                f"{self.part.parent}: expected {whole - begin} bytes free, got {free}; make room "
                "and run again"
            )
        return whole

    def _receive(self, response: requests.Response, begin: int, whole: int | None) -> None:
        shown = bar(
            desc=self.part.name.strip("."),
            total=whole,
            initial=begin,
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
        )
        with shown, open(self.part, "r+b" if begin else "wb") as file:
            file.seek(begin)
            for block in response.iter_content(_BLOCK):
                if file.tell() + len(block) > self.most:
                    raise self._other_size("sends more")
                file.write(block)
                shown.update(len(block))

    def _other_size(self, sent: str) -> DownloadError:
        expected = f"at most {self.most}" if self.size is None else f"{self.size}"
        return DownloadError(
            f"{self.address}: expected {expected} bytes, the server {sent}; try another address"
        )


def fetch(
    address: str,
    path: str | os.PathLike[str],
    *,
    size: int | None = None,
    md5: str | None = None,
    most: int = 1 << 36,
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
        most: bytes that are taken of a file of unknown size.
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
            most = most if size is None else size
            _Download(session, address, part, size, most, timeout_s).complete(retries)
            fault = fault_of(part, size=size, md5=md5)
            if fault is None:
                move(part, path)
                return path

            part.unlink()
            if is_fresh:
                break
    raise DownloadError(f"{address}: {fault}; nothing of it was kept, try another address")
