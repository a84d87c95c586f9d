"""How many epochs sharing stages between runs saves: what two manifests agree on is trained once."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from cplxnet.auto.manifest.read import Manifest
from cplxnet.auto.runner import stages
from cplxnet.auto.runner.folder import RunFolder


def planned(manifests: Mapping[str, Manifest]) -> str:
    """A sentence: epochs asked for and epochs to train, early stopping left aside; empty if no stage is shared."""
    asked, distinct = 0, dict[stages.Shared, int]()
    for manifest in manifests.values():
        for stage, shared in stages.planned(manifest):
            asked += stage.n_epochs
            distinct[shared] = stage.n_epochs
    to_train = sum(distinct.values())
    if to_train == asked:
        return ""
    share = 1 - to_train / asked
    return f"stages that runs share are trained once: {to_train} epochs in place of {asked}, {share:.0%} fewer"


def saved(folder: str | Path, names: Iterable[str]) -> str:
    """A sentence: epochs and hours that runs have taken from each other; empty if none."""
    epochs, seconds, n_stages = 0, 0.0, 0
    for name in names:
        try:
            scores = RunFolder(Path(folder) / name).scores or {}
        except ValueError:  # damaged: its own run says so
            continue
        for stage in scores.get("stages", {}).values():
            if stage["reused_from"] is not None:
                n_stages, epochs, seconds = (
                    n_stages + 1,
                    epochs + stage["epochs"],
                    seconds + stage["seconds"],
                )
    if not n_stages:
        return ""
    return f"{n_stages} stages taken from other runs: {epochs} epochs ({seconds / 3600:.2g} h) not trained again"
