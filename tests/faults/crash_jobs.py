"""What the tests of crash points run.

`python crash_jobs.py DATA` serves these jobs (`crash_points`).
"""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import demo_pieces
import numpy as np
import torch
from crash_points import serve
from distributed import Scheduler, Worker
from small import SAMPLERS, C, Epochs, quick, small

from cplxnet import files
from cplxnet.auto import run_many
from cplxnet.auto.__main__ import main
from cplxnet.auto.manifest.grid import write
from cplxnet.auto.runner import folder, trainer
from cplxnet.auto.sweep import cluster, queue, worker
from cplxnet.auto.train import loop, state
from cplxnet.musicnet import networks, recordings
from extra.corpora import SPLITS, archive, demo

Say = Callable[..., None]

# -- runs ------------------------------------------------------------------------------------------


def _prepare(say: Say) -> None:
    torch.set_num_threads(1)  # a forked child has no threads of OpenMP
    epochs = Epochs(lambda n: say(epoch=n))
    SAMPLERS[epochs.name] = epochs.sampler
    for module in (trainer, queue, cluster, worker):
        module.LOOK_EVERY_S = 0.02
    for module in (folder, trainer, state, loop):
        module.time = Clock  # equal states of two trials are equal files


class Clock:
    """The module `time`, on a day without end."""

    sleep = staticmethod(time.sleep)
    monotonic = staticmethod(time.monotonic)
    perf_counter = time = staticmethod(lambda: 0.0)


def train(root: Path, data: Path, say: Say) -> None:
    """A run of three stages, two epochs each."""
    _prepare(say)
    quick(small(window=16), root / "run", data)


def grid(root: Path, data: Path, say: Say) -> None:
    """Two runs that share their dense stage, one after the other."""
    _prepare(say)
    _write(root)
    _run_grid(root, data)


def _write(root: Path) -> None:
    manifests = {name: small({C: c}, window=16) for name, c in (("a", 0.05), ("b", 0.1))}
    write(root, manifests)


def _run_grid(root: Path, data: Path, **options: Any) -> None:
    outcomes = run_many(root, data=data, progress=False, **options)
    bad = [outcome for outcome in outcomes if outcome.state not in ("done", "skipped")]
    if bad:
        raise RuntimeError(f"expected every run done, got {bad}")


def commands(root: Path, data: Path, say: Say) -> None:
    """The same by two commands at once. One that dies leaves its work to the other."""
    _prepare(say)
    _write(root)
    children = [_forked(lambda: _run_grid(root, data)) for _ in range(2)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if sorted(codes) not in ([0, 0], [-signal.SIGKILL, 0]):
        raise RuntimeError(f"expected commands that end well, got {codes}")


def workers(root: Path, data: Path, say: Say) -> None:
    """The same by two Dask workers, forked, which start in no time. One may die."""
    _prepare(say)
    _write(root)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"

    scheduler = Scheduler, {"host": "127.0.0.1", "port": port, "dashboard": False}
    one = Worker, {"scheduler_ip": address, "nthreads": 1, "memory_limit": 0, "dashboard": False}
    servers = [_serving(*server) for server in (scheduler, one, one)]
    try:
        _run_grid(root, data, address=address)
    finally:
        for server in servers:
            os.kill(server, signal.SIGKILL)
            os.waitpid(server, 0)


def _serving(kind: type, options: dict[str, Any]) -> int:
    async def serve_it() -> None:
        async with kind(**options) as server:
            await server.finished()

    return _forked(lambda: asyncio.run(serve_it()))


def _forked(work: Callable[[], None]) -> int:
    """A process that does this work; its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


# -- what is written once --------------------------------------------------------------------------


def marks(data: Path) -> str:
    """A page that `page` may put its text into."""
    return f"<!-- begin: python -m cplxnet.auto page {data} --into FILE -->\n<!-- end -->\n"


def outputs(root: Path, data: Path, say: Say) -> None:
    """What commands write, over what is there: page, figure, network, transcription."""
    torch.set_num_threads(1)
    run = data / "run"
    network = root / "net.safetensors"
    page = root / "page.md"
    if not page.exists():
        files.write_text(page, marks(data))

    stem = root / "tone"
    for words in (
        ["page", data, "--into", page],
        ["report", "trade-off", data, "--out", root],
        ["export", run, network, "--as", "compact"],
        ["export", run, root / "net.pt", "--as", "cplxmodule"],
        ["transcribe", data / "tone.wav", "--model", network, "--out", stem, "--overwrite"],
        ["export", run, root / "net.onnx"],
    ):
        if main(list(map(str, words))) != 0:
            raise RuntimeError(f"expected {words[0]} to end with 0")


def corpora(root: Path, data: Path, say: Say) -> None:
    """What the builders write."""
    pieces = [demo_pieces.piece(f"id_{k}001", split) for k, split in enumerate(SPLITS, 1)]
    demo.build(root, pieces=pieces, maker=_silence, n_workers=0)
    demo.build_reference(root, pieces=pieces, maker=_silence, n_workers=0)
    archive.build(data / "musicnet", root, n_workers=0)


def _silence(piece: Any, font: Path, result: Path) -> None:
    samples = np.zeros(900, np.float32)
    labels = np.zeros(0, recordings.LABELS)
    np.savez(result, full=samples, full_labels=labels, low=samples, low_labels=labels, dropped=0)


if __name__ == "__main__":
    networks._with_head.__defaults__ = (8,)  # units of the hidden layer, of 2048: hundreds of runs
    jobs = (train, grid, commands, workers, outputs, corpora)
    serve({job.__name__: job for job in jobs}, Path(sys.argv[1]))
