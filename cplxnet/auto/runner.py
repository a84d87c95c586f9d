"""One run: a manifest trained in a folder, with whatever ends it written there."""

import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .epoch import Diverged
from .folder import RunFolder
from .manifest import Manifest
from .session import Session


def run(
    manifest: Manifest,
    folder: str | Path,
    *,
    device: str = "cpu",
    data: str | Path = "data",
    progress: bool = True,
    reuse: Sequence[str | Path] = (),
) -> dict[str, Any]:
    """Run a manifest in `folder` and return what its scores.json holds.

    Stages that the folder already holds, trained under the same settings on the same data, are not trained again; nor
    are those found in one of the `reuse` folders: the result is the same to the bit. Whatever ends the run early is
    written into the folder (status.json, traceback.txt) before the exception goes on: NaN or infinity as `diverged`,
    Ctrl-C as `interrupted`, anything else as `failed`.

    device: as torch names it, "cpu" or "cuda:0"; data: the folder that the manifest's files lie in.

    Raises
    ------
    ValueError: no such device, bad data; FileNotFoundError: a data file is missing; Diverged.
    """
    manifest, files = manifest.resolved(), RunFolder(folder)
    files.start(manifest, check_device(device))  # a folder that holds results is not touched for a device's sake
    try:
        session = Session(manifest, files, device=device, data=Path(data), progress=progress)
        scores = session.run([RunFolder(path) for path in reuse])
    except BaseException as error:
        state = "diverged" if isinstance(error, Diverged) else "failed"
        if isinstance(error, KeyboardInterrupt):
            state = "interrupted"
        files.write_traceback(traceback.format_exc())
        files.update(state=state, reason=f"{type(error).__name__}: {error}")
        raise
    files.update(state="done", reason=None)
    return scores


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
