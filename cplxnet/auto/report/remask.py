"""A finished run at another threshold on log alpha, its earlier stages taken over; runs brought to equal compression.

What is trained before the first mask is made does not depend on the threshold: it is copied under the new manifest's
keys, and `run` goes on from there with the masks of the new threshold.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cplxnet import files
from cplxnet import nn as cplx
from cplxnet.auto import tasks
from cplxnet.auto.manifest import grid
from cplxnet.auto.manifest.experiments import REDUCTION
from cplxnet.auto.manifest.read import Manifest
from cplxnet.auto.models import load_model, read_manifest
from cplxnet.auto.progress import bar
from cplxnet.auto.runner import stages
from cplxnet.auto.runner.components import Components
from cplxnet.auto.runner.folder import RunFolder
from cplxnet.auto.train.loop import predict
from cplxnet.nn.sparsity import variational_layers

SPARSIFY, TUNE = "sparsify", "fine-tune"


@torch.no_grad()
def threshold_for(model: nn.Module, compression: float) -> float:
    """The threshold on log alpha at which `compression(model, threshold)` is nearest to `compression` from below.

    The weights of all layers are ranked together; as many of the most relevant are kept as n_par/compression allows.

    Raises ValueError where no threshold gives that: not above 1, or more than leaving every weight out gives.
    """
    n_par = sum(total for _, total in cplx.sparsity(model, 0.0).values())
    layers = list(variational_layers(model).values())
    parts = 2 if layers[0].term.cplx else 1  # real numbers a weight
    ranked = torch.cat([layer.log_alpha.flatten() for layer in layers]).sort().values
    fixed = n_par - parts * len(ranked)  # biases and batch norm
    n_kept = math.ceil((n_par / compression - fixed) / parts) if compression > 1 else 0
    if not 0 < n_kept < len(ranked):
        most = n_par / (fixed + parts)
        raise ValueError(
            f"expected a compression between 1 and {most:.4g}, got {compression:g}; try one in between"
        )
    return float(ranked[n_kept - 1])


def remask(
    source: str | Path,
    manifest: Manifest,
    into: str | Path,
    *,
    data: str | Path = "data",
    device: str = "cpu",
) -> list[str]:
    """Put into the folder `into`, under the keys of `manifest`, the stages of the run `source` that have no masks.

    manifest: that of the source but for its name and threshold; `run(manifest, into)` then trains the rest. data,
    device: as of `run`. Returns the names of the stages taken over.

    Raises ValueError where the manifests differ in more than that, or the source was trained on other data;
    FileNotFoundError where it has no snapshots.
    """
    before, after = read_manifest(source).resolved(), manifest.resolved()
    like = grid.edit(before, {"name": after.name, "threshold": after.threshold})
    if like.fingerprint() != after.fingerprint():
        raise ValueError(
            f"{source}: expected a manifest that differs in name and threshold only, got another"
        )
    old, new = RunFolder(source), RunFolder(into)
    fingerprints = Components(after, device=device, data=Path(data)).fingerprints
    keys: dict[str, str | None] = {"old": None, "new": None}
    results: dict[str, Any] = {}
    for number, name in enumerate(_unmasked(after)):
        manifests = {"old": before, "new": after}
        keys = {
            which: stages.key_of(one, name, previous=keys[which], data=fingerprints, device=device)
            for which, one in manifests.items()
        }
        result = (old.scores or {"stages": {}})["stages"].get(name, {})
        if result.get("key") != keys["old"]:
            raise ValueError(
                f"{source}: expected stage {name} trained on the data in {data}, got none; try to run it"
            )
        snapshot = files.read_tensors(old.snapshot(number, name)) | {"key": keys["new"]}
        files.write_tensors(new.snapshot(number, name), snapshot)
        counts = stages.counts(load_model(source, name)[0], after.threshold)
        results[name] = (
            result
            | counts
            | {"key": keys["new"], "reused_from": result["reused_from"] or old.path.name}
        )
    scores = {
        "schema": 1,
        "name": after.name,
        "seed": after.seed,
        "manifest": after.to_dict(),
        "stages": results,
    }
    new.write_history([line for line in old.history if line["stage"] in results])
    new.write_scores(scores)
    return list(results)


def _unmasked(manifest: Manifest) -> Iterator[str]:
    """The stages before the first one with masks."""
    vocabulary = tasks.vocabulary(manifest.task)
    for stage in manifest.all_stages():
        if vocabulary.is_masked(stage.model.name):
            return
        yield stage.name


def score_at(
    model: nn.Module,
    manifest: Manifest,
    materials: Components,
    *,
    threshold: float,
    scorer: str = "validation",
) -> float:
    """Pooled average precision of a variational network, what is irrelevant at `threshold` masked, nothing retrained.

    materials: of `manifest`. model: as `load_model` gives it, of the stage before the one with masks.
    """
    masked = materials.build(manifest.stage(TUNE))
    stages.inherit(masked, model, threshold=threshold)
    target, logit = predict(masked, materials.feed(manifest.scorers[scorer].feed))
    return float(materials.task.pooled_average_precision(target, logit))


def equalise(
    folder: str | Path,
    into: str | Path,
    *,
    at: Sequence[float] = (4, 20),
    data: str | Path = "data",
    device: str = "cpu",
) -> dict[str, Manifest]:
    """From the runs of `legacy.averaged_kl.study` in `folder`, a folder of runs at equal compression, to go on with.

    For each compression of `at` and each reduction, all runs of that reduction are re-masked at the threshold that
    gives it, and the one that scores best on validation before any fine-tuning is taken: neither is held to a C that
    is not its best there.

    Returns the manifests that are written to `into`, and as `remask` the runs begun beside them.
    """
    made: dict[str, Manifest] = {}
    found = [
        (compression, how, names)
        for compression in at
        for how, names in _by_reduction(folder).items()
    ]
    with bar(total=len(found), desc="equal compression", unit="run") as shown:
        for compression, how, names in found:
            source, threshold = _best(
                Path(folder), names, compression, data=Path(data), device=device
            )
            manifest, label = read_manifest(source), f"{how}-x{compression:g}"
            made[label] = grid.edit(
                manifest, {"name": f"{manifest.name} x{compression:g}", "threshold": threshold}
            )
            remask(source, made[label], Path(into) / label, data=data, device=device)
            shown.update()
    grid.write(into, made, overwrite=True)
    return made


def _best(
    folder: Path, names: Iterable[str], compression: float, *, data: Path, device: str
) -> tuple[Path, float]:
    """The run that scores best on validation at this compression, and its threshold there."""
    tried = []
    for name in names:
        model, manifest = load_model(folder / name, SPARSIFY)
        threshold = threshold_for(model, compression)
        materials = Components(manifest, device=device, data=data)
        tried.append(
            (score_at(model.to(device), manifest, materials, threshold=threshold), name, threshold)
        )
    _, name, threshold = max(tried)
    return folder / name, threshold


def _by_reduction(folder: str | Path) -> Mapping[str, list[str]]:
    """The names of the runs under "sum" and of those under "mean"."""
    runs = grid.read(folder)
    found = {
        how: [name for name, one in runs.items() if grid.value(one, REDUCTION) == how]
        for how in ("sum", "mean")
    }
    if not all(found.values()):
        raise ValueError(
            f"{folder}: expected runs under sum and under mean, got {found}; try legacy.study"
        )
    return found
