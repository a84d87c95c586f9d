"""Many runs: every manifest of a folder, each in the folder of its name, here or on workers."""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from cplxnet.auto.manifest import grid
from cplxnet.auto.runner import lock, stages
from cplxnet.auto.runner.run import check_device, each_device
from cplxnet.auto.runner.stop import Stop
from cplxnet.extras import extra
from cplxnet.progress import bar, say

from .queue import Outcome, Queue, Settings, failed, run_one


def run_many(
    folder: str | Path,
    *,
    device: str = "cpu",
    devices: Sequence[str] | None = None,
    per_device: int = 1,
    address: str | None = None,
    data: str | Path = "data",
    progress: bool = True,
    retry_failed: bool = False,
    again: bool | Iterable[str] = False,
    reuse: bool = True,
    accept_changes: bool = False,
    timeout_s: float = lock.TIMEOUT_S,
    stop: Stop | None = None,
) -> list[Outcome]:
    """Run every manifest `folder/<name>.json` in `folder/<name>/` that is not done yet.

    All manifests are read and checked before the first is run. A run that fails is reported in its
    own folder and in the outcomes, and the others go on; Ctrl-C ends them all, and the same call
    goes on from there. A stage that two manifests share is trained once. Several such calls at the
    same time, on any hosts that share the folder, share the work; each returns when all is done,
    whoever did it.

    Args:
        folder: of the manifests.
        device, data, progress, accept_changes, timeout_s, stop: as of `run`, for every run.
        devices: several of them, in place of `device`; "cuda" is every GPU of a machine.
        per_device: runs at a time on each device.
        address: of a Dask scheduler whose workers are to do it, each host with `devices`; None:
            this machine. One run at a time on one device is done in this process.
        retry_failed: also run those that failed or diverged before.
        again: names of runs to look at although they are done, and to train what is missing or
            damaged of them; True: all.
        reuse: take stages that runs share from each other.

    Returns:
        An outcome for each manifest, in the order of their names.

    Raises:
        ManifestError: a manifest is faulty, or there is none.
        ValueError: no such device, or a number out of range.
        ConnectionError: no scheduler at the address.
        MissingExtraError: several runs at a time, without the packages for it.
        Interrupted: `stop` was asked; the same call goes on from there.
    """
    folder = Path(folder)
    devices = tuple(devices or (device,))
    if address is None:
        devices = each_device(devices)
    if per_device < 1:
        raise ValueError(f"expected per_device of at least 1, got {per_device}")
    lock.check_timeout(timeout_s)
    stop = stop or Stop()

    manifests = grid.read(folder)
    looked_at = frozenset((manifests if again else ()) if isinstance(again, bool) else again)
    unknown = sorted(looked_at - manifests.keys())
    if unknown:
        raise ValueError(
            f"expected names of runs in {folder} to run again, got {', '.join(unknown)}; "
            "try `python -m cplxnet.auto status` on the folder"
        )
    for name in () if address else devices:
        check_device(name)

    settings = Settings(
        folder=folder.resolve(),
        data=Path(data).resolve(),
        reuse=reuse,
        progress=progress,
        accept_changes=accept_changes,
        timeout_s=timeout_s,
        retry=failed(folder, manifests) if retry_failed else {},
        again=looked_at,
    )
    queue = Queue(manifests, settings)
    if progress and reuse:
        say(stages.savings(manifests.values()))

    if address is None and len(devices) * per_device == 1:
        _here(queue, devices[0], stop)
    else:
        with extra("grid"):
            from . import cluster

        cluster.run(queue, stop, devices=devices, per_device=per_device, address=address)
    return queue.all_outcomes()


def _here(queue: Queue, device: str, stop: Stop) -> None:
    """One run after another in this process."""
    settings = queue.settings
    n_runs = len(queue.names)
    off = not settings.progress
    with bar(total=n_runs, desc=settings.folder.name, unit="run", disable=off) as shown:
        while queue.open:
            stop.heed()
            name = queue.take()
            if name is None:
                shown.set_postfix_str(f"{len(queue.pending)} with other processes")
                time.sleep(0.1)
                continue

            shown.set_postfix_str(name)
            manifest = queue.manifests[name]
            queue.settle(run_one(name, settings, device=device, read=manifest, stop=stop))
            shown.update(len(queue.outcomes) - shown.n)
