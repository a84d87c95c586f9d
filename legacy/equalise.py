"""Runs of the study of the averaged KL, brought to equal compression.

Sum and mean are compared where each is at its best: for a compression, the run of each reduction
is taken that scores best on validation when it is masked to that compression.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cplxnet import nn as cplx
from cplxnet.auto.manifest import grid
from cplxnet.auto.manifest.grid import REDUCTION
from cplxnet.auto.manifest.read import Manifest
from cplxnet.auto.models import load_model, read_manifest
from cplxnet.auto.report.threshold import SPARSIFY, remask, score_at
from cplxnet.auto.runner.components import Components
from cplxnet.nn.gaussian import GaussianWeight
from cplxnet.nn.sparsity import variational_layers
from cplxnet.progress import bar


@torch.no_grad()
def threshold_for(model: nn.Module, compression: float) -> float:
    """The threshold on log alpha at which the compression is nearest to `compression` from below.

    The weights of all layers are ranked together; as many of the most relevant are kept as
    n_par/compression allows.

    Raises:
        ValueError: no threshold gives that: not above 1, or more than leaving out all weights.
    """
    n_par = sum(total for _, total in cplx.sparsity(model, 0.0).values())
    variational = variational_layers(model).values()
    layers = [layer for layer in variational if isinstance(layer, GaussianWeight)]
    parts = 2 if layers[0].term.cplx else 1  # real numbers a weight
    ranked = torch.cat([layer.log_alpha.flatten() for layer in layers]).sort().values
    fixed = n_par - parts * len(ranked)  # biases and batch norm

    n_kept = math.ceil((n_par / compression - fixed) / parts) if compression > 1 else 0
    if not 0 < n_kept < len(ranked):
        most = n_par / (fixed + parts)
        raise ValueError(
            f"expected a compression between 1 and {most:.4g}, got {compression:g}; "
            "try one in between"
        )
    return float(ranked[n_kept - 1])


def equalise(
    folder: str | Path,
    into: str | Path,
    *,
    at: Sequence[float] = (4, 20),
    data: str | Path = "data",
    device: str = "cpu",
) -> dict[str, Manifest]:
    """From the runs of `averaged_kl.study` begin a folder of runs at equal compression.

    For each compression and each reduction, all runs of that reduction are masked at the threshold
    that gives it, and the one that scores best on validation before any fine-tuning is taken: no
    reduction is held to a C that is not its best there.

    Args:
        folder: of the finished runs, with their snapshots.
        into: the folder to write; `run` goes on with it.
        at: compressions, times fewer real numbers.
        data, device: as of `run`.

    Returns:
        The manifests written to `into`; their runs are begun beside them as `remask` does.
    """
    manifests: dict[str, Manifest] = {}
    names = _by_reduction(folder)
    with bar(total=len(at) * len(names), desc="equal compression", unit="run") as shown:
        for compression in at:
            for reduction, runs in names.items():
                where: dict[str, Any] = {"data": Path(data), "device": device}
                source, threshold = _best(Path(folder), runs, compression, **where)
                manifest = read_manifest(source)
                title = f"{manifest.name} x{compression:g}"
                changes = {"name": title, "threshold": threshold}

                label = f"{reduction}-x{compression:g}"
                manifests[label] = grid.edit(manifest, changes)
                remask(source, manifests[label], Path(into) / label, **where)
                shown.update()
    grid.write(into, manifests, overwrite=True)
    return manifests


def _best(
    folder: Path, names: Iterable[str], compression: float, *, data: Path, device: str
) -> tuple[Path, float]:
    """The run that scores best on validation at this compression, and its threshold there."""
    tried = []
    for name in names:
        model, manifest = load_model(folder / name, SPARSIFY)
        threshold = threshold_for(model, compression)
        components = Components(manifest, device=device, data=data)
        score = score_at(model.to(device), manifest, components, threshold=threshold)
        tried.append((score, name, threshold))
    _, name, threshold = max(tried)
    return folder / name, threshold


def _by_reduction(folder: str | Path) -> Mapping[str, list[str]]:
    """The names of the runs under "sum" and of those under "mean"."""
    runs = grid.read(folder)
    names = {
        reduction: [name for name, one in runs.items() if grid.value(one, REDUCTION) == reduction]
        for reduction in ("sum", "mean")
    }
    if not all(names.values()):
        raise ValueError(
            f"{folder}: expected runs under sum and under mean, got {names}; try legacy.study"
        )
    return names
