"""Checkpoints: the state of a stage after each epoch, so that a run killed at any moment goes on from its last epoch.

They lie in the run's folder as `epoch-NNNN.pt`, numbered over all stages. A new one is written whole before the second
last is removed. The last of a stage becomes its snapshot, by a second name for the same file; then all are removed.
"""

import contextlib
import threading
from pathlib import Path
from typing import Any

import torch

from cplxnet import files as atomic

from .folder import RunFolder

SCHEMA = 1
KEPT = 2  # the newest, and the one before should the newest turn out damaged


class Checkpoints:
    """Writes checkpoints of one run while its training goes on, and finds the newest that is sound."""

    def __init__(self, files: RunFolder) -> None:
        self.files = files
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(self, epoch: int, state: dict[str, Any]) -> None:
        """Write `state` (tensors and plain values) as the checkpoint of this epoch, counted over all stages.

        The tensors are copied at once; the file is written behind the training of the next epoch. What went wrong with
        the one before (a full disk) is raised here.
        """
        self.wait()
        value = {"schema": SCHEMA, "epoch": epoch, **_copied(state)}
        self._thread = threading.Thread(target=self._write, args=(self._path(epoch), value))
        self._thread.start()

    def _write(self, path: Path, value: dict[str, Any]) -> None:
        try:
            atomic.write_tensors(path, value, check=self.files.check)
            for older in self._there()[KEPT:]:
                older.unlink(missing_ok=True)
        except (
            BaseException
        ) as error:  # raised again by the next save or wait, in the thread of the training
            self._error = error

    def wait(self) -> None:
        """Wait until what was saved is on disk; raises what went wrong."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def latest(self, key: str, *, optimizer: bool = False) -> dict[str, Any] | None:
        """The newest checkpoint of the stage with this key, None if there is none.

        One that is damaged is named in the run's notes and set aside as *.corrupt, and the one before is taken. Those
        of another stage, or of other settings, are removed: counted higher, they would be taken for newer ones. So are
        with `optimizer` those of a stage's end that lack the optimiser's state.
        """
        for path in self._there():
            try:
                state = atomic.read_tensors(path)
                lacking = optimizer and state["optimizer"] is None
                if state["schema"] == SCHEMA and state["key"] == key and not lacking:
                    return state
                self._remove(path)
            except (ValueError, KeyError, TypeError) as error:
                self.files.set_aside(path, error)
        return None

    def keep(self, path: Path, epoch: int) -> None:
        """Have the checkpoint of this epoch, the stage's last, as `path` too. Raises OSError if it was not written."""
        self.wait()
        atomic.share(self._path(epoch), path, check=self.files.check)

    def write(self, path: Path, epoch: int, state: dict[str, Any]) -> None:
        """Write `state` as a checkpoint of this epoch to `path`, here and now."""
        atomic.write_tensors(
            path, {"schema": SCHEMA, "epoch": epoch, **state}, check=self.files.check
        )

    def clear(self) -> None:
        """Remove every checkpoint: the stage has its snapshot now."""
        self.wait()
        for path in self._there():
            self._remove(path)

    def _remove(self, path: Path) -> None:
        if self.files.check is not None:
            self.files.check()  # or it is that of the process that goes on with the run
        path.unlink(missing_ok=True)

    def _path(self, epoch: int) -> Path:
        return self.files.path / f"epoch-{epoch:04}.pt"

    def _there(self) -> list[Path]:
        """Newest first."""
        numbered = {}
        for path in self.files.path.glob("epoch-*.pt"):
            with contextlib.suppress(ValueError):
                numbered[int(path.stem.removeprefix("epoch-"))] = path
        return [numbered[number] for number in sorted(numbered, reverse=True)]


def _copied(value: Any) -> Any:
    """`value` with every tensor copied to host memory, where training does not change it."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(item) for item in value]
    return value
