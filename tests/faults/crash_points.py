"""Every point at which a process can die while it changes files, numbered: a disk that forgets.

A `Lab` is a process that has imported everything and forks a child for each job. The child and the
processes that it forks number their changes below a folder (open for writing, fsync, rename, link,
unlink, mkdir), and can be killed just before number k; that is also just after number k - 1. Either
all of them are, or the one that is about to make the change, while the others go on. What they did
is in a log, so that the state of the folder can be had in which a crash of the whole machine may
leave it:

kept        all that the processes had done is there: they were killed, the machine lives
rolled back each folder is as it was when it was last synced, files not synced are empty
reordered   the same, but files that were removed stay removed

(SQLite is tested in this way: "How SQLite Is Tested", section 3.3.)
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import itertools
import json
import mmap
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PR_SET_CHILD_SUBREAPER = 36  # of prctl(2)
STATES = ("kept", "rolled back", "reordered")
HERE = Path(__file__).parent

Job = Callable[[Path, Path, Callable[..., None]], None]
"""What is run: given the folder that it may change, a folder of data, and a function that logs."""


# -- in the child: each change is numbered, logged, and may be the last ----------------------------


class Recorder:
    """Numbers the changes below `root` and writes them to a log; kills before number `crash_at`.

    Args:
        root: the folder.
        notes: a folder for the log.
        crash_at: a change's number; None: nothing is killed.
        alone: the process that is about to make that change is killed; else all of the group.
    """

    def __init__(self, root: Path, notes: Path, crash_at: int | None, *, alone: bool) -> None:
        self.root = f"{root.resolve()}{os.sep}"
        self.notes = notes
        self.crash_at = crash_at
        self.alone = alone
        self._count = mmap.mmap(-1, 8)  # of the changes; a forked process shares it
        self._busy = threading.local()
        self._lock = threading.Lock()
        self._log = os.open(notes / "log.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    @property
    def n_changes(self) -> int:
        """Changes so far, by all processes."""
        return int.from_bytes(self._count[:], "little")

    @contextlib.contextmanager
    def _turn(self) -> Iterator[int]:
        """The number of the next change, while no other thread or process makes one."""
        with self._lock:
            fcntl.lockf(self._log, fcntl.LOCK_EX)  # of this process, whatever it was forked from
            try:
                number = self.n_changes + 1
                self._count[:] = number.to_bytes(8, "little")
                yield number
            finally:
                fcntl.lockf(self._log, fcntl.LOCK_UN)

    def _crash(self) -> None:
        if self.alone:
            self.say(crashed=os.getpid())
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)  # changes of others that are in the log are on their way
        os.killpg(0, signal.SIGKILL)

    def start(self) -> None:
        """Watch this process until it ends: an audit hook cannot be taken back."""
        sys.addaudithook(self._hook)
        os.fsync = self._synced  # it has no audit event, and only takes time: the disk is simulated

    def say(self, **line: Any) -> None:
        """Write a line to the log; it is there also after SIGKILL."""
        os.write(self._log, f"{json.dumps(line)}\n".encode())

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if getattr(self._busy, "now", False):
            return
        match event, arguments:
            case "open", (path, _, flags) if not isinstance(path, int) and path is not None:
                if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                    self._change("open", path)
            case "os.rename", (source, target, *_):
                self._change("rename", target, source=source)
            case "os.link", (source, target, *_):
                self._change("link", target, source=source)
            case "os.remove", (path, *_):
                self._change("remove", path)
            case "os.mkdir", (path, *_):
                self._change("mkdir", path)

    def _synced(self, descriptor: int | Any) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        self._change("sync", os.readlink(f"/proc/self/fd/{number}"))

    def _change(self, kind: str, path: Any, *, source: Any = None) -> None:
        path = os.path.abspath(os.fsdecode(path))
        if not f"{path}{os.sep}".startswith(self.root):
            return
        if (kind == "mkdir" and os.path.isdir(path)) or (
            kind == "remove" and not os.path.exists(path)
        ):
            return  # changes nothing

        self._busy.now = True
        try:
            with self._turn() as number:
                if number == self.crash_at:
                    self._crash()

                line: dict[str, Any] = {"change": kind, "path": path, "there": os.path.exists(path)}
                if source is not None:
                    line["source"] = os.path.abspath(os.fsdecode(source))
                if kind in ("rename", "remove") and os.path.isfile(path):
                    line["before"] = str(self.notes / f"before-{number}")
                    os.link(path, line["before"])
                self.say(**line)
        finally:
            self._busy.now = False


# -- in the laboratory: forks ----------------------------------------------------------------------


def serve(jobs: dict[str, Job], data: Path) -> None:
    """Fork a child for each line on standard input; answer with how it ended.

    The first job runs here once before: what a first run imports would be imported by each child.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        next(iter(jobs.values()))(Path(folder), data, lambda **line: None)

    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)  # what a dead child has forked is ours then
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            _work(jobs[order["job"]], order)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.killpg(child, signal.SIGKILL)
            while True:
                os.waitpid(-child, 0)
        print(json.dumps(code), flush=True)


def _work(job: Job, order: dict[str, Any]) -> None:
    os.setpgid(0, 0)
    notes = Path(order["notes"])
    output = os.open(notes / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    recorder = Recorder(Path(order["root"]), notes, order["crash_at"], alone=order["alone"])
    code = 1
    try:
        recorder.start()
        job(Path(order["root"]), Path(order["data"]), recorder.say)
        code = 0
    except BaseException as error:
        import traceback

        traceback.print_exception(error)
    finally:
        recorder.say(changes=recorder.n_changes)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Lab:
    """The laboratory: a process that runs a job of `script` on a folder as often as asked.

    Args:
        script: a Python file that calls `serve`.
        data: what jobs read.
        bench: a folder for trials.
    """

    def __init__(self, script: Path, data: Path, bench: Path) -> None:
        temporary = bench / "tmp"
        temporary.mkdir(parents=True)
        folders = ("tests", "tests/auto", "tests/extra/corpora/demo")
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([os.getcwd(), *folders, str(HERE)]),
            "OMP_NUM_THREADS": "1",  # a forked child has no threads of OpenMP
            "TMPDIR": str(temporary),
        }
        self.data = data
        self.bench = bench
        self._trials = itertools.count()
        self._process = subprocess.Popen(
            [sys.executable, str(script), str(data)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.communicate()

    def trial(
        self, job: str, root: Path, *, crash_at: int | None = None, alone: bool = False
    ) -> Trial:
        """Run a job on `root` to its end, or to just before a change: see `Recorder`."""
        assert self._process.stdin is not None and self._process.stdout is not None
        notes = self.bench / f"notes-{next(self._trials)}"
        notes.mkdir(parents=True)
        root.mkdir(parents=True, exist_ok=True)
        order = {
            "job": job,
            "root": str(root),
            "notes": str(notes),
            "data": str(self.data),
            "crash_at": crash_at,
            "alone": alone,
        }
        self._process.stdin.write(f"{json.dumps(order)}\n")
        self._process.stdin.flush()
        return Trial(root, notes, json.loads(self._process.stdout.readline()))


# -- in the test: what a crash leaves --------------------------------------------------------------

# what differs between two trials of one job: processes, and names made up
VOLATILE = re.compile(rb'\.\d+-[0-9a-f]{8}-[0-9a-f]{8}\.|"(pid|began)": -?\d+|"token": "\w+"')


def digest(root: Path) -> str:
    """Of all names and contents below `root`: equal where a crash has left the same."""
    found = hashlib.sha256()
    for path in sorted(root.rglob("*"), key=lambda path: VOLATILE.sub(b"", os.fsencode(path))):
        name = os.fsencode(path.relative_to(root))
        content = path.read_bytes() if path.is_file() else b""
        found.update(repr((VOLATILE.sub(b"", name), VOLATILE.sub(b"", content))).encode())
    return found.hexdigest()


class Trial:
    """A job that ran on a folder.

    Attributes:
        root: the folder.
        code: exit code; -9 of a child that died at its crash point.
        lines: its log.
    """

    def __init__(self, root: Path, notes: Path, code: int) -> None:
        self.root = root
        self.notes = notes
        self.code = code
        with (notes / "log.jsonl").open() as log:
            self.lines = [json.loads(line) for line in log]

    @property
    def output(self) -> str:
        return (self.notes / "output.txt").read_text()

    @property
    def n_changes(self) -> int:
        """Changes of a job that went to its end."""
        return next(line["changes"] for line in self.lines if "changes" in line)

    def count(self, key: str) -> int:
        """Lines of the log with this key."""
        return sum(key in line for line in self.lines)

    def after_crash(self, state: str, to: Path) -> None:
        """Copy the folder to `to` in one of STATES."""
        shutil.copytree(self.root, to)
        if state != "kept":
            self._forget(to, keep_removed=state == "reordered")

    def _forget(self, to: Path, *, keep_removed: bool) -> None:
        root = self.root.resolve()
        changes = [line for line in self.lines if "change" in line]
        last_sync = {
            line["path"]: number for number, line in enumerate(changes) if line["change"] == "sync"
        }

        def there(path: str) -> Path:
            return to / Path(path).relative_to(root)

        # contents that no fsync has brought to the disk: each file is known by its first name
        unsynced: set[str] = set()
        name_of: dict[str, str] = {}
        for number, line in enumerate(changes):
            path = line["path"]
            match line["change"]:
                case "open":
                    name_of[path] = f"{path} {number}"
                    unsynced.add(name_of[path])
                case "rename":
                    name_of[path] = name_of.pop(line["source"], path)
                case "link":
                    name_of[path] = name_of.get(line["source"], line["source"])
                case "sync":
                    unsynced.discard(name_of.get(path, path))
        for path, name in name_of.items():
            if name in unsynced and there(path).is_file():
                there(path).write_bytes(b"")

        # names that no fsync of their folder has brought to the disk
        for number, line in reversed(list(enumerate(changes))):
            path = line["path"]
            if line["change"] == "sync" or last_sync.get(str(Path(path).parent), -1) > number:
                continue
            copy = there(path)
            match line["change"]:
                case "open" if not line["there"]:
                    copy.unlink(missing_ok=True)
                case "link":
                    copy.unlink(missing_ok=True)
                case "rename" if copy.exists():
                    copy.rename(there(line["source"]))
                    if "before" in line:
                        shutil.copyfile(line["before"], copy)
                case "remove" if "before" in line and not keep_removed:
                    shutil.copyfile(line["before"], copy)


@contextlib.contextmanager
def removed_at_end(folder: Path) -> Iterator[Path]:
    """A folder for a trial, gone after it: hundreds of them would fill a disk."""
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
