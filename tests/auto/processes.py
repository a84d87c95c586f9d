"""Schedulers, workers and the command itself as processes, for tests with real faults."""

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import torch
from small import quick, read, small, timeless

from cplxnet.auto.runner.folder import RunFolder

ROOT = Path(__file__).parents[2]
WITHIN_S = 400.0  # for whatever is waited for, on a busy machine too
QUICKLY = {  # Dask's patience, shorter than the 30 s that suit a real network
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "10s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s",
}
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CPLXNET_PROGRESS": "text"}
LONG = {"stages.dense.n_epochs": 150, "stages.dense.early": None, "feeds.train.n_batches": 1}


def long(seed=0):
    """A run of 154 epochs of a batch, quick to save: long enough to be met under way."""
    return small(LONG | {"seed": seed}, window=16)


def assert_undisturbed(folder, manifest, data, tmp_path):
    """The run is done, with the scores of the manifest run alone here with as many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(read(folder, "config")["threads"])
    try:
        quick(manifest, tmp_path / "alone" / folder.name, data)
    finally:
        torch.set_num_threads(before)
    assert read(folder, "status")["state"] == "done"
    assert timeless(read(folder)) == timeless(read(tmp_path / "alone" / folder.name))


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def until(what, found, seconds=WITHIN_S, command=None):
    """Wait until `found()` is true, and return it; TimeoutError with `what`, at once where
    `command` ends before.
    """
    end, ended = time.monotonic() + seconds, False
    while time.monotonic() < end and not ended:
        ended = (
            command is not None and command.poll() is not None
        )  # before looking for what it may have done last
        value = found()
        if value:
            return value
        time.sleep(0.02)
    said = (
        f": the command has ended\n{command.log.read_text(errors='replace')[-3000:]}"
        if ended
        else ""
    )
    raise TimeoutError(what + said)


def under_way(folder, n_epochs=2, command=None):
    """The process that trains the run, once it has trained so many epochs; command: of `until`."""

    def owner():
        status = RunFolder(folder).status
        return (
            status["state"] == "running"
            and status.get("epoch", 0) >= n_epochs
            and status["owner"]["pid"]
        )

    return until(f"{folder}: expected a run under way", owner, command=command)


class Started:
    """Processes with a log each, ended with the test whatever happens; each leads a group of its
    own.
    """

    def __init__(self, folder):
        self.folder, self.processes = folder, []
        folder.mkdir()

    def __call__(self, *command, name, wrap=()):
        path = self.folder / f"{name}-{len(self.processes)}.log"
        environment = os.environ | ONE_THREAD | QUICKLY | {"PYTHONPATH": str(ROOT)}
        with path.open("wb") as log:
            process = subprocess.Popen(
                [*wrap, *map(str, command)],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        process.log = path
        self.processes.append(process)
        return process

    def scheduler(self, port, *, host="127.0.0.1", protocol="tcp", wrap=()):
        options = ["--host", host, "--port", port, "--protocol", protocol, "--no-dashboard"]
        return self(
            sys.executable, "-m", "dask", "scheduler", *options, name="scheduler", wrap=wrap
        )

    def workers(self, address, *options, wrap=()):
        """A worker that is started again when it has ended, as README says."""
        options = [
            "--nworkers",
            "1",
            "--nthreads",
            "1",
            "--memory-limit",
            "0",
            "--no-dashboard",
            *options,
        ]
        worker = [
            sys.executable,
            "-m",
            "dask",
            "worker",
            address,
            *options,
            "--preload",
            "cplxnet.auto.sweep.worker",
        ]
        loop = f"while true; do {shlex.join(map(str, worker))}; sleep 1; done"
        return self("bash", "-c", loop, name="workers", wrap=wrap)

    def command(self, folder, data, *options, wrap=()):
        arguments = ["-m", "cplxnet.auto", "run", folder, "--data", data, *options]
        return self(sys.executable, *arguments, name="command", wrap=wrap)

    def logs(self):
        """The ends of all logs, to be shown where a test fails."""
        return "\n".join(
            f"== {process.log.name}\n{process.log.read_text(errors='replace')[-3000:]}"
            for process in self.processes
        )

    def end(self):
        for process in self.processes:
            kill(process)
        for process in self.processes:
            process.wait(60)


def kill(process, number=signal.SIGKILL):
    """Send the signal to a process and those of its session."""
    sessions = [
        session for session in Path("/proc").glob("[0-9]*/stat") if _session(session) == process.pid
    ]
    for path in sessions:
        try:
            os.kill(int(path.parent.name), number)
        except ProcessLookupError:
            continue


def _session(path):
    try:
        return int(path.read_text().rpartition(")")[2].split()[3])  # field 6 of proc(5)
    except (OSError, IndexError):
        return None
