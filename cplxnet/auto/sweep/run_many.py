"""Many runs: every manifest of a folder, each in the folder of its name, here or on workers."""

import time
from collections.abc import Sequence
from pathlib import Path

from cplxnet.auto.manifest import grid
from cplxnet.auto.progress import bar, say
from cplxnet.auto.runner import lock
from cplxnet.auto.runner.run import check_device
from cplxnet.extras import extra

from . import savings, space
from .queue import Agenda, failed
from .run_one import Outcome, Settings, run_one


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
    reuse: bool = True,
    accept_changes: bool = False,
    timeout_s: float = lock.TIMEOUT_S,
) -> list[Outcome]:
    """Run every manifest `folder/<name>.json` in `folder/<name>/` that is not done yet; returns an outcome for each.

    All manifests are read and checked before the first is run. A run that fails is reported in its own folder and in
    the outcomes, and the others go on; Ctrl-C ends them all, and the same call goes on from there. A stage that two
    manifests share is trained once. Several such calls at the same time, on any hosts that share the folder, share the
    work; each returns when all is done, whoever did it.

    Args:
        device: where, as torch names it; devices: several of them, in place of `device`.
        per_device: runs at a time on each device.
        address: of a Dask scheduler whose workers are to do it, each host with `devices`; None: this machine. One run
            at a time on one device is done in this process.
        data: the folder of the data files.
        progress: show bars.
        retry_failed: also run those that failed or diverged before.
        reuse: take stages that runs share from each other.
        accept_changes: run on with manifests that have changed since their run was started.
        timeout_s: silence, in seconds, after which a run's process counts as gone and another goes on with it.

    Raises
    ------
    ManifestError: a manifest is faulty, or there is none; ValueError: no such device; ConnectionError: no scheduler.
    """
    folder, chosen = Path(folder), tuple(devices or (device,))
    manifests = grid.read(folder)
    if per_device < 1:
        raise ValueError(f"expected per_device of at least 1, got {per_device}")
    for name in () if address else chosen:
        check_device(name)
    settings = Settings(
        folder=folder.resolve(),
        data=Path(data).resolve(),
        reuse=reuse,
        progress=progress,
        accept_changes=accept_changes,
        timeout_s=timeout_s,
        retry=failed(folder, manifests) if retry_failed else {},
    )
    agenda = Agenda(manifests, settings)
    if progress:
        say(savings.planned(manifests) if reuse else "")
        say(space.shortage(folder, manifests, reuse=reuse, at_once=len(chosen) * per_device))
    if address is None and len(chosen) * per_device == 1:
        _here(agenda, settings, chosen[0])
    else:
        with extra("grid"):
            from . import cluster

        cluster.run(agenda, settings, devices=chosen, per_device=per_device, address=address)
    return agenda.all_outcomes()


def _here(agenda: Agenda, settings: Settings, device: str) -> None:
    """One run after another in this process."""
    with bar(
        total=len(agenda.names),
        desc=settings.folder.name,
        unit="run",
        disable=not settings.progress,
    ) as shown:
        while agenda.open:
            name = agenda.take()
            if name is None:
                shown.set_postfix_str(f"{len(agenda.pending)} with other processes")
                time.sleep(0.1)
                continue
            shown.set_postfix_str(name)
            agenda.settle(run_one(name, settings, device=device, read=agenda.manifests[name]))
            shown.update(len(agenda.outcomes) - shown.n)
