"""One run: a manifest trained in a folder, with whatever ends it written there."""

import contextlib
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from cplxnet import nn as cplx
from cplxnet.auto.manifest.read import Manifest
from cplxnet.auto.train import precision
from cplxnet.auto.train.loop import Diverged

from . import lock
from .changes import refuse_changes
from .folder import RunFolder
from .trainer import Session


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop by the process that had given it out."""


def run(
    manifest: Manifest,
    folder: str | Path,
    *,
    device: str = "cpu",
    data: str | Path = "data",
    progress: bool = True,
    reuse: Sequence[str | Path] = (),
    accept_changes: bool = False,
    timeout_s: float = lock.TIMEOUT_S,
) -> dict[str, Any]:
    """Run a manifest in `folder` and return what its scores.json holds.

    Stages that the folder already holds, trained under the same settings on the same data, are not trained again; nor
    are those found in one of the `reuse` folders, and a stage cut off goes on after its last epoch: the result is the
    same to the bit. Whatever ends the run early is written into the folder (status.json, traceback.txt) before the
    exception goes on: NaN or infinity as `diverged`, Ctrl-C as `interrupted`, anything else as `failed`.

    device: as torch names it, "cpu" or "cuda:0"; data: the folder that the manifest's files lie in.
    accept_changes: run on with a manifest that has changed since the run was started, keeping what still holds.
    timeout_s: silence, in seconds, after which another process may take the run for dead and go on with it.

    Raises
    ------
    ValueError: no such device, bad data; ManifestChanged; FileNotFoundError: a data file is missing; Diverged;
    claim.Held: another process is running it.
    """
    check_device(device)  # a folder that holds results is not touched for a device's sake
    with lock.hold(Path(folder) / "claim", timeout_s) as held:
        return run_held(
            held,
            manifest,
            device=device,
            data=data,
            progress=progress,
            reuse=reuse,
            accept_changes=accept_changes,
        )


def run_held(
    held: lock.Claim,
    manifest: Manifest,
    *,
    device: str,
    data: str | Path,
    progress: bool,
    reuse: Sequence[str | Path],
    accept_changes: bool,
    stopped: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """`run` in the folder of a claim that this process has. stopped: asked at every batch; True ends the run."""

    def check() -> None:
        held.check()
        if stopped():
            raise Interrupted("asked to stop")

    manifest, files = manifest.resolved(), RunFolder(held.place.parent, check=held.verify)
    if not accept_changes:
        refuse_changes(files, manifest)
    n_threads = torch.get_num_threads()
    # as the run began, whatever this machine has: sums of another order have other last bits. Said aloud even where it
    # is the same, or MKL may take fewer.
    torch.set_num_threads(files.config.get("threads", n_threads))
    cplx.keep_freed()  # once and for all that this process trains
    try:
        files.start(manifest, device)
        places = [RunFolder(path) for path in reuse]
        session = Session(
            manifest,
            files,
            device=device,
            data=Path(data),
            progress=progress,
            check=check,
            timeout_s=held.timeout_s,
        )
        with precision.tf32(manifest.products == "tf32"):
            scores = session.run(places)
        files.update(state="done", reason=None)
    except lock.ClaimLost:
        raise  # the folder is another's
    except BaseException as error:
        _tell(files, error)
        raise
    finally:
        torch.set_num_threads(n_threads)
    held.finish()
    return scores


def _tell(files: RunFolder, error: BaseException) -> None:
    """Write into the folder what ended the run, as far as it can be written."""
    state = "diverged" if isinstance(error, Diverged) else "failed"
    if isinstance(error, KeyboardInterrupt):
        state = "interrupted"
    reason = f"{type(error).__name__}: {error}"
    with contextlib.suppress(OSError, ValueError, lock.ClaimLost):  # a full disk, a damaged status
        files.write_traceback("".join(traceback.format_exception(error)))
    with contextlib.suppress(OSError, ValueError, lock.ClaimLost):
        files.update(state=state, reason=reason)


def check_device(device: str) -> str:
    """`device` if torch has it; a ValueError that names those it has, otherwise."""
    there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    try:
        torch.empty(1, device=device).item()  # "meta" can be made, not read
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"expected a device that torch has here ({', '.join(there)}), got {device!r}: {reason}"
        ) from error
    return device
