"""Downloads from a server on loopback that cuts, ignores Range, sends wrong bytes, and answers 404
and 503.
"""

import contextlib
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from extra.corpora import archive
from extra.corpora.archive.download import DownloadError, fetch

CONTENT = bytes(range(256)) * 12_000  # 3 MB
MD5 = hashlib.md5(CONTENT).hexdigest()
QUICK = {"backoff_s": 0.001, "size": len(CONTENT), "md5": MD5, "timeout_s": 60}


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        server.asked.append(self.headers.get("Range"))
        status = server.statuses.pop(0) if server.statuses else 200
        if status != 200:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        asked, begin = self.headers.get("Range"), 0
        if asked and server.ranges:
            begin = int(asked.removeprefix("bytes=").rstrip("-"))
            if begin >= len(server.content):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header(
                "Content-Range", f"bytes {begin}-{len(server.content) - 1}/{len(server.content)}"
            )
        else:
            self.send_response(200)
        body = server.content[begin:]
        if server.says_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = server.cuts.pop(0) if server.cuts else None
        with contextlib.suppress(ConnectionError):  # whoever has seen enough hangs up
            self.wfile.write(body[:cut])
        self.close_connection = True


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        made.content, made.ranges, made.cuts, made.statuses, made.asked = CONTENT, True, [], [], []
        made.says_length = True
        made.address = f"http://127.0.0.1:{made.server_address[1]}/musicnet.tar.gz"
        threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
        yield made
        made.shutdown()


def test_whole_then_not_again(server, tmp_path):
    path = fetch(server.address, tmp_path / "a", **QUICK)
    assert path.read_bytes() == CONTENT and server.asked == [None]
    fetch(server.address, path, **QUICK)
    assert len(server.asked) == 1 and [p.name for p in tmp_path.iterdir()] == ["a"]


def test_goes_on_where_the_connection_broke(server, tmp_path):
    server.cuts = [1 << 21, 1 << 19, 100]
    assert fetch(server.address, tmp_path / "a", **QUICK).read_bytes() == CONTENT
    begins = [int(asked.removeprefix("bytes=").rstrip("-")) for asked in server.asked[1:]]
    assert len(begins) == 3 and begins == sorted(begins) and begins[0] >= 1 << 20


def test_goes_on_in_a_later_call(server, tmp_path):
    server.cuts = [1 << 21] + [0] * 9
    with pytest.raises(
        DownloadError, match=r"broke 2 times in a row .*kept in .*\.a\.part: run again"
    ):
        fetch(server.address, tmp_path / "a", **QUICK, retries=2)
    assert not (tmp_path / "a").exists() and (tmp_path / ".a.part").stat().st_size >= 1 << 20
    server.cuts = []
    assert fetch(server.address, tmp_path / "a", **QUICK).read_bytes() == CONTENT
    assert server.asked[-1] is not None


def test_a_server_that_ignores_range(server, tmp_path):
    server.ranges, server.cuts = False, [1 << 21]
    assert fetch(server.address, tmp_path / "a", **QUICK).read_bytes() == CONTENT


def test_wrong_bytes_are_never_used(server, tmp_path):
    server.content = b"x" + CONTENT[1:]
    with pytest.raises(DownloadError, match=f"expected md5 {MD5}, got .*nothing of it was kept"):
        fetch(server.address, tmp_path / "a", **QUICK)
    assert list(tmp_path.iterdir()) == []


def test_another_size_is_refused_before_it_is_fetched(server, tmp_path):
    server.content = b"<html>"
    with pytest.raises(DownloadError, match="expected 3072000 bytes, the server offers 6"):
        fetch(server.address, tmp_path / "a", **QUICK)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("left", [b"y" * 5000, CONTENT, CONTENT + b"more"])
def test_a_part_of_whatever_is_there(left, server, tmp_path):
    (tmp_path / ".a.part").write_bytes(left)
    assert fetch(server.address, tmp_path / "a", **QUICK).read_bytes() == CONTENT


def test_a_wrong_file_under_the_name_is_replaced(server, tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.warns(UserWarning, match="expected 3072000 bytes, got 3; downloading it again"):
        fetch(server.address, tmp_path / "a", **QUICK)
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_404_at_once_503_after_a_while(server, tmp_path):
    server.statuses = [404]
    with pytest.raises(
        DownloadError, match=r"musicnet\.tar\.gz: expected the file, got status 404 Not Found; try"
    ):
        fetch(server.address, tmp_path / "a", **QUICK)
    assert len(server.asked) == 1
    server.statuses = [503, 503]
    assert fetch(server.address, tmp_path / "a", **QUICK).read_bytes() == CONTENT
    server.statuses = [503] * 9
    with pytest.raises(
        DownloadError, match="got status 503 Service Unavailable; busy, try again later"
    ):
        fetch(server.address, tmp_path / "b", **QUICK, retries=2)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_no_server(tmp_path):
    with pytest.raises(DownloadError, match="the connection broke"):
        fetch("http://127.0.0.1:9/a", tmp_path / "a", backoff_s=0.001, retries=1)


def test_no_room(server, tmp_path, monkeypatch):
    from extra.corpora.archive import download

    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(
        archive.DiskFullError, match="expected 3072000 bytes free, got 10; make room"
    ):
        fetch(server.address, tmp_path / "a", **QUICK)


def test_the_address_can_be_a_mirror_or_a_path(server, tmp_path):
    mirrored = archive.obtain(server.address, tmp_path / "data", check=False)
    assert mirrored == tmp_path / "data" / "musicnet.tar.gz" and mirrored.read_bytes() == CONTENT
    with pytest.raises(
        DownloadError, match="expected 11097394998 bytes, the server offers 3072000"
    ):
        archive.obtain(server.address, tmp_path / "other")
    with pytest.raises(DownloadError, match="expected 11097394998 bytes, got 3072000"):
        archive.obtain(mirrored, tmp_path)
    assert archive.obtain(tmp_path, tmp_path) == tmp_path
    with pytest.raises(FileNotFoundError, match="expected MusicNet at"):
        archive.obtain(tmp_path / "nowhere", tmp_path)


def test_a_server_that_never_ends_is_cut_at_the_expected_size(server, tmp_path):
    server.says_length = False
    server.content = CONTENT + b"more" * 1_000_000

    with pytest.raises(DownloadError, match="expected 3072000 bytes, the server sends more"):
        fetch(server.address, tmp_path / "a", **QUICK)
    assert not (tmp_path / "a").exists()
    assert (tmp_path / ".a.part").stat().st_size <= len(CONTENT)


@pytest.mark.parametrize("says_length", [True, False])
def test_a_file_of_unknown_size_has_a_bound_too(server, tmp_path, says_length):
    server.says_length = says_length
    quick = {"backoff_s": 0.001, "timeout_s": 60, "most": 1 << 20}
    with pytest.raises(DownloadError, match="expected at most 1048576 bytes, the server "):
        fetch(server.address, tmp_path / "a", **quick)
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / ".a.part").exists() or (tmp_path / ".a.part").stat().st_size <= 1 << 20
