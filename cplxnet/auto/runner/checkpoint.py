"""Checkpoints: the state of a stage after an epoch, so that a run killed at any moment goes on.

They lie in the run's folder as `epoch-NNNN.pt`, numbered by the epochs they hold, over all stages.
A new one is written whole before the second last is removed. The last of a stage becomes its
snapshot, by a second name for the same file; then all are removed.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map_only

from cplxnet import files
from cplxnet.auto.train.graph import Cuda

from .folder import RunFolder

SCHEMA = 1
KEPT = 2  # the newest, and the one before should the newest turn out damaged


def checkpoint_every_s(device: str) -> float:
    """Seconds from one checkpoint to the next at least; 0: after every epoch.

    There is always one at a stage's end. On a GPU an epoch takes seconds and a checkpoint holds
    hundreds of megabytes: a minute of training may be lost there.
    """
    return 60.0 if device.startswith("cuda") else 0.0


class _Writing(threading.Thread):
    """The writing of one checkpoint. The thread ends with it.

    A pool's worker would not: Ctrl-C while it starts leaves one that the pool does not know of, and
    the process waits for it for ever.
    """

    def __init__(self, write: Callable[[], None]) -> None:
        super().__init__()
        self._write = write
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._write()
        except BaseException as error:  # raised by `result`
            self._error = error

    def result(self) -> None:
        """Wait until it is done; raises what went wrong."""
        with contextlib.suppress(RuntimeError):  # interrupted before it began
            self.join()
        if self._error is not None:
            raise self._error


@dataclass(eq=False)
class Checkpoints:
    """Writes checkpoints of one run while its training goes on, and finds the newest sound one."""

    folder: RunFolder
    _: KW_ONLY
    every_s: float = 0.0  # from one checkpoint to the next at least; 0: after every epoch
    cuda: Cuda | None = None  # copies from a GPU; None: the network is not on one

    def __post_init__(self) -> None:
        self._saved_at = -float("inf")
        self._newest: Path | None = None  # the checkpoint written or read last
        self._writing: _Writing | None = None

    # -- writing -----------------------------------------------------------------------------------

    def save(self, epoch: int, state: dict[str, Any], *, last: bool = False) -> None:
        """Write `state` as the checkpoint of this epoch, if one is due.

        The tensors are copied at once, from a GPU while the host goes on; the file is written while
        the next epoch trains. If that fails (a full disk), the next call raises the error.

        Args:
            epoch: epochs that the state holds, over all stages.
            state: tensors and plain values.
            last: of the stage, or before a stop: it is written even if none is due.
        """
        self.wait()
        if not last and time.monotonic() - self._saved_at < self.every_s:
            return

        copied, wait_for_copies = self._copied({"schema": SCHEMA, "epoch": epoch, **state})
        path = self._newest = self._path(epoch)
        self._writing = _Writing(lambda: self._write(path, copied, wait_for_copies))
        self._writing.start()
        self._saved_at = time.monotonic()

    def _copied(self, state: dict[str, Any]) -> tuple[dict[str, Any], Callable[[], None]]:
        """A copy of `state` in host memory, and a function that waits until it is complete."""
        tensors = [leaf.detach() for leaf in tree_leaves(state) if isinstance(leaf, torch.Tensor)]
        if self.cuda is None:
            copies, wait_for_copies = [t.to("cpu", copy=True) for t in tensors], lambda: None
        else:
            copies, wait_for_copies = self.cuda.to_host(tensors)

        in_order = iter(copies)
        return tree_map_only(torch.Tensor, lambda _: next(in_order), state), wait_for_copies

    def _write(
        self, path: Path, value: dict[str, Any], wait_for_copies: Callable[[], None]
    ) -> None:
        wait_for_copies()
        files.write_snapshot(path, value, check=self.folder.check)
        for older in self._there()[KEPT:]:
            older.unlink(missing_ok=True)

    def wait(self) -> None:
        """Wait until what was saved is on disk; raises what went wrong."""
        writing = self._writing
        self._writing = None
        if writing is not None:
            writing.result()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """The block's checkpoints are on disk at its end; its own error goes before theirs."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):
                self.wait()
            raise
        self.wait()

    def end(self, path: Path, epoch: int, state: dict[str, Any], *, changed: bool) -> None:
        """Write a stage's snapshot to `path`: the checkpoint of its last epoch under a second name.

        Args:
            epoch: epochs that the state holds, over all stages.
            state: of the stage at its end.
            changed: the state is not that of the checkpoint any more; it is written anew.
        """
        checkpoint = self._path(epoch)
        if changed or self._newest != checkpoint:
            value = {"schema": SCHEMA, "epoch": epoch, **state}
            files.write_snapshot(path, value, check=self.folder.check)
        else:
            files.share(checkpoint, path, check=self.folder.check)

    def clear(self) -> None:
        """Remove every checkpoint: the stage has its snapshot now."""
        self.wait()
        self._newest = None
        for path in self._there():
            self._remove(path)

    # -- reading -----------------------------------------------------------------------------------

    def latest(self, key: str, *, optimizer: bool = False) -> dict[str, Any] | None:
        """The newest checkpoint of the stage with this key; None if there is none.

        A damaged one is named in the run's notes and set aside as *.corrupt, and the one before is
        taken. Checkpoints of another stage or other settings are deleted, since a higher number
        looks newer. With `optimizer`, those without optimiser state too.
        """
        for path in self._there():
            try:
                state = files.read_tensors(path)
                lacking = optimizer and state["optimizer"] is None
                if state["schema"] == SCHEMA and state["key"] == key and not lacking:
                    self._newest = path
                    return state
                self._remove(path)
            except (ValueError, KeyError, TypeError) as error:
                self.folder.set_aside(path, error)
        return None

    def _remove(self, path: Path) -> None:
        if self.folder.check is not None:
            self.folder.check()  # or it is that of the process that goes on with the run
        path.unlink(missing_ok=True)

    def _path(self, epoch: int) -> Path:
        return self.folder.path / f"epoch-{epoch:04}.pt"

    def _there(self) -> list[Path]:
        """The checkpoints in the folder, newest first."""
        numbered = {}
        for path in self.folder.path.glob("epoch-*.pt"):
            with contextlib.suppress(ValueError):
                numbered[int(path.stem.removeprefix("epoch-"))] = path
        return [numbered[number] for number in sorted(numbered, reverse=True)]
