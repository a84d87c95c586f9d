"""One run: a manifest trained in a folder, with whatever ends it written there."""

import contextlib
import time
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from cplxnet import nn as cplx
from cplxnet.auto.manifest.read import Manifest
from cplxnet.auto.train import precision
from cplxnet.auto.train.loop import Diverged
from cplxnet.files import no_memory
from cplxnet.nn.fast import gpu, native
from cplxnet.progress import say

from . import lock
from .components import Components
from .folder import RunFolder, State, refuse_changes, refuse_grid, refuse_retraining, unchanged
from .stages import of_kin
from .stop import Stop
from .trainer import Trainer


class DeviceLost(RuntimeError):
    """The device does not answer any more, which is no fault of the run's."""


class OutOfMemory(RuntimeError):
    """Too little memory left; other processes may be using it."""


def run(
    manifest: Manifest,
    folder: str | Path,
    *,
    device: str = "cpu",
    data: str | Path = "data",
    progress: bool = True,
    reuse: Sequence[str | Path] | None = (),
    accept_changes: bool = False,
    again: bool = False,
    timeout_s: float = lock.TIMEOUT_S,
    claim: lock.Claim | None = None,
    stop: Stop | None = None,
) -> dict[str, Any]:
    """Run a manifest in `folder` and return what its scores.json holds.

    A run that is done is not run again, and needs neither data nor device. Stages that the folder
    already holds, trained under the same settings on the same data, are not trained again; nor are
    those found in one of the `reuse` folders. A stage cut off goes on after its last epoch: the
    result is the same to the bit.

    Nothing in the folder is written before device and data are open. Whatever ends the run early
    from then on is written into the folder (status.json, traceback.txt) before the exception goes
    on: NaN or infinity as `diverged`, Ctrl-C, errors of the system (a full disk), too little memory
    and a device that is lost as `interrupted`, anything else as `failed`.

    Args:
        manifest: the experiment.
        folder: of the run.
        device: as torch names it, "cpu" or "cuda:0".
        data: the folder that the manifest's files lie in.
        progress: show bars.
        reuse: folders of other runs, from which finished stages are taken; runs of a grid and of
            its edited manifests take them from each other too. None: nothing is taken.
        accept_changes: run on with a manifest that has changed since the run was started, keeping
            what still holds; or on other data, another kind of device, or with another torch.
        again: look at the stages of a run that is done too, and train those whose snapshots are
            lost or damaged.
        timeout_s: silence, in seconds and at least one, after which another process may take the
            run for dead and go on with it.
        claim: on the folder, where the caller has it already (`lock.hold(folder / "claim")`).
        stop: a request to stop: the run ends after its epoch.

    Raises:
        ManifestChanged: the run was started with another manifest; or what it has trained was
            trained on other data, another kind of device, or with another torch.
        TypeError: no Manifest.
        ValueError: a folder of manifests, no such device, data that cannot be used, or a timeout
            out of range.
        FileNotFoundError: a data file is missing.
        Diverged: NaN or infinity in training.
        DeviceLost: the device does not answer any more.
        OutOfMemory: too little memory.
        Held: another process is running it.
        Interrupted: it was asked to stop.
    """
    lock.check_timeout(timeout_s)
    if not isinstance(manifest, Manifest):
        raise TypeError(f"expected a Manifest, got {type(manifest).__name__}; try auto.load(path)")
    manifest = manifest.resolved()
    run_folder = RunFolder(folder)
    refuse_grid(run_folder)
    place = run_folder.path / "claim"
    reuse_folders = [] if reuse is None else [*reuse, *of_kin(manifest, run_folder.path)]

    # done already?
    if not accept_changes:
        refuse_changes(run_folder, manifest)
    scores = None if again else _done(run_folder, manifest, progress)
    if scores is not None:
        lock.clear(place)
        return scores

    # device and data, before anything is written
    check_device(device)
    if claim is None:
        lock.refuse_held(place)
    components = Components(manifest, device=device, data=Path(data))
    if not accept_changes:
        refuse_retraining(run_folder, components.trained_on)

    with contextlib.nullcontext(claim) if claim else lock.hold(place, timeout_s) as claim:
        run_folder = RunFolder(folder, check=claim.check_now)
        scores = None if again else _done(run_folder, manifest, progress)
        if scores is not None:  # by another process, since we looked
            claim.finish()
            return scores

        # Use the thread count the run started with: summation order changes the last bits. Set it
        # even if unchanged; MKL may otherwise use fewer.
        is_native = native.enabled()
        n_threads = torch.get_num_threads()
        torch.set_num_threads(run_folder.config.get("threads", n_threads))
        cplx.keep_freed()  # once and for all that this process trains
        try:
            run_folder.start(manifest, device, components.trained_on)
            if device.startswith("cuda:"):
                torch.cuda.set_device(device)  # where streams and graphs are, by default

            while scores is None:
                trainer = Trainer(
                    manifest,
                    run_folder,
                    components,
                    claim=claim,
                    stop=stop or Stop(),
                    progress=progress,
                )
                try:
                    with precision.tf32(manifest.products == "tf32"), precision.deterministic():
                        scores = trainer.run([RunFolder(path) for path in reuse_folders])
                except gpu.KernelError as error:  # at a size that nobody has tried
                    if not (native.enabled() and answers(device)):
                        raise
                    native.use(False)
                    run_folder.note(f"{error}; goes on from its checkpoint with the plain formulas")
            run_folder.finish()
        except lock.ClaimLost:
            raise  # the folder is another's
        except BaseException as error:
            reported = _reported(error, device)
            if reported is not error:
                reported.__cause__ = error
            trace = "".join(traceback.format_exception(reported))
            run_folder.record(_state(reported), f"{type(reported).__name__}: {reported}", trace)
            raise reported  # noqa: B904 - its cause is set, or it is the error itself
        finally:
            torch.set_num_threads(n_threads)
            native.use(is_native)
        claim.finish()
    return scores


def _done(folder: RunFolder, manifest: Manifest, progress: bool) -> dict[str, Any] | None:
    """The scores of a run that is done with this manifest, and a word of it; None if it is not."""
    try:
        status = folder.status
        scores = folder.scores or {}
    except ValueError:  # damaged: set aside once the folder is this process's
        return None
    if status["state"] != "done" or not unchanged(folder, manifest):
        return None
    if list(scores.get("stages", {})) != list(manifest.stage_order):
        return None

    if progress:
        day = time.strftime("%Y-%m-%d", time.localtime(status.get("updated")))
        trained = f", trained on {day}" if "updated" in status else ""
        elsewhere = "" if folder.snapshots() else ", its snapshots are not here"
        say(f"{folder.path.name}: read{trained}{elsewhere}")
    return scores


def _reported(error: BaseException, device: str) -> BaseException:
    """The error that ended a run, in words of ours where it is the device's."""
    reason = gpu.first_line(error)
    if isinstance(error, torch.OutOfMemoryError) or no_memory(error):
        return OutOfMemory(
            f"{device} has too little memory for this run: {reason}; "
            "try --per-device 1, less data, or samples int16 in the manifest"
        )
    if isinstance(error, RuntimeError) and not isinstance(error, Diverged) and not answers(device):
        return DeviceLost(
            f"{device} does not answer any more: {reason}; try nvidia-smi, and then the same "
            "command, which goes on from here"
        )
    return error


def _state(error: BaseException) -> State:
    """The state of a run that this error ended; `interrupted` runs are tried again by themselves.

    That is the state after errors from outside the run: a full disk, a lost device.
    """
    if isinstance(error, Diverged):
        return "diverged"
    if isinstance(error, (KeyboardInterrupt, OSError, DeviceLost, OutOfMemory)):
        return "interrupted"
    return "failed"


def each_device(devices: Iterable[str]) -> tuple[str, ...]:
    """The devices by name, "cuda" being every GPU of this machine."""
    n_gpus = torch.cuda.device_count()
    gpus = tuple(f"cuda:{i}" for i in range(n_gpus)) or ("cuda",)  # none: refused by its name
    named = [gpus if device == "cuda" else (device,) for device in devices]
    return tuple(dict.fromkeys(name for names in named for name in names))


def check_device(device: str) -> None:
    """Raise ValueError if torch does not have `device`; the text names those it has."""
    there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    try:
        torch.empty(1, device=device).item()  # "meta" can be made, not read
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"expected a device that torch has here ({', '.join(there)}), got {device!r}: "
            f"{gpu.first_line(error)}"
        ) from error


def answers(device: str) -> bool:
    """Whether torch has `device`, and can compute there."""
    try:
        check_device(device)
    except ValueError:
        return False
    return True
