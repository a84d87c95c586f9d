"""The key of a stage, and what the stage takes over.

It inherits weights and masks from the stage before, or is taken whole from another run.
"""

import contextlib
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from cplxnet import files
from cplxnet import nn as cplx
from cplxnet.auto.manifest.edit import EDITED
from cplxnet.auto.manifest.read import Manifest, Stage
from cplxnet.auto.tasks import OWN, vocabulary
from cplxnet.nn import gaussian
from cplxnet.nn.masked import Masked

from .folder import RunFolder

# -- seeds and keys --------------------------------------------------------------------------------

# Keys of a manifest that do not count for a stage's key. Parts of the last four count under other
# names: the terms that weigh something, and the stage with its network filled in. All other keys
# count, also those that a later version adds.
NOT_COUNTED = (
    "schema",
    "name",
    "parent",
    "cuda_graph",  # the same bits
    "objective_terms",
    "model",
    "stages",
    "stage_order",
)
# Keys that were added when there were finished runs already: left out at this value, so that those
# keep their keys.
AT_FIRST = {"samples": "float32"}
# A stage's name counts, since its random numbers come from it. It does not count for these stages
# in these places: their keys are older than that.
NAMES_AT_FIRST = ("dense", "sparsify", "fine-tune")


def seed_of(manifest: Manifest, stage: str, purpose: str) -> int:
    """A seed of 63 bits from the manifest's, for one stage and one purpose ("noise", say)."""
    digest = hashlib.blake2b(f"{manifest.seed}/{stage}/{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def key_of(
    manifest: Manifest, stage: str, *, previous: str | None, data: Mapping[str, str], device: str
) -> str:
    """A fingerprint of all that a stage's result and scores depend on: one key, one result.

    Args:
        manifest: of the run; a default left out counts as written.
        stage: its name.
        previous: the key of the stage before, None for the first.
        data: the fingerprint of each dataset by its name; empty: as if all runs had the same data.
        device: as torch names it; machines of one kind count as one.
    """
    whole = manifest.resolved().to_dict()
    counted = {
        key: value
        for key, value in whole.items()
        if key not in NOT_COUNTED and AT_FIRST.get(key) != value
    }

    settings = manifest.stage(stage).to_dict()
    weighed = {term: weight for term, weight in settings["objective"].items() if weight != 0}
    counted |= {
        "stage": settings | {"objective": weighed},
        "terms": {term: whole["objective_terms"][term] for term in weighed},
        "previous": previous,
        "data": dict(data),
        "device": torch.device(device).type,
        "torch": torch.__version__,
    }
    place = manifest.stage_order.index(stage)
    if (stage,) != NAMES_AT_FIRST[place : place + 1]:
        counted["name"] = stage
    if settings["optimizer"].get("weight_decay"):
        counted["weight_decay_of"] = "weights"  # in versions before 2026-12 of log_sigma2 too
    if settings.get("shrink") and counted["device"] == "cpu":
        # dense in versions before 2026-11-27: other last digits
        counted["shrunk_linear"] = "sparse"
    is_complex = manifest.stage(stage).model.name.startswith("complex.")
    if whole.get("products") == "bfloat16" and not is_complex:
        counted["loss"] = "float32"  # in versions before 2026-11-27 bfloat16

    # what versions before 2026-11-28 did otherwise
    if place and not settings["reset"]:
        order = manifest.stage_order
        before, now = (manifest.stage(name).model.name for name in order[place - 1 : place + 1])
        words = vocabulary(manifest.task)
        if words.is_masked(before) and not words.is_masked(now):
            counted["inherited"] = "masked"  # as if nothing was masked
        if before in words.variational_models and settings.get("log_sigma2") is not None:
            counted["log_sigma2_of"] = "stage"  # of the stage before

    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()


class Shared(NamedTuple):
    """What two manifests have in common where they share a stage."""

    number: int  # its place in the order, from 0
    name: str
    key: str
    goes_on: bool  # the next stage goes on with the optimiser's state, so the snapshot has it


def planned(
    manifest: Manifest, *, data: Mapping[str, str] | None = None, device: str = "cpu"
) -> Iterator[tuple[Stage, Shared]]:
    """Every stage in order, and what it shares with other manifests' stages.

    Arguments as of `key_of`; data None: as if all runs had the same data.
    """
    in_order = manifest.all_stages()
    key = None
    for number, (stage, after) in enumerate(itertools.zip_longest(in_order, in_order[1:])):
        key = key_of(manifest, stage.name, previous=key, data=data or {}, device=device)
        goes_on = after is not None and not after.restart
        yield stage, Shared(number, stage.name, key, goes_on)


def savings(manifests: Iterable[Manifest]) -> str:
    """A sentence on the epochs that sharing stages saves, early stopping aside; empty if none."""
    every = [stage for manifest in manifests for stage in planned(manifest)]
    asked = sum(stage.n_epochs for stage, _ in every)
    to_train = sum({shared: stage.n_epochs for stage, shared in every}.values())
    if to_train == asked:
        return ""
    return (
        f"stages that runs share are trained once: {to_train} epochs in place of {asked}, "
        f"{1 - to_train / asked:.0%} fewer"
    )


# -- inheritance -----------------------------------------------------------------------------------


def inherit(
    model: nn.Module, previous: nn.Module, *, threshold: float, posteriors: bool = True
) -> bool:
    """Copy weights from `previous`; where `model` has masks, irrelevant weights are masked.

    A variational network hands over its posterior means, and masks of the weights with log_alpha <=
    threshold; one with gates its weights times their gates, and masks of those that are not shut; a
    masked one its weights times their masks, and the masks.

    Args:
        model: the stage's network, which is changed.
        previous: that of the stage before.
        threshold: log_alpha above which a weight is irrelevant.
        posteriors: one variational network also hands log_sigma2, or gates, to another.

    Returns:
        Whether masks were inherited.

    Raises:
        ValueError: the two networks differ in more than the kind of their layers.
    """
    state = previous.state_dict()
    if not posteriors:
        state = {key: value for key, value in state.items() if not key.endswith(gaussian.OWN)}
    try:
        result = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ValueError(
            f"expected networks with weights of one shape, got {error}; try reset"
        ) from error

    strange = [
        key
        for key in (*result.missing_keys, *result.unexpected_keys)
        if key.rsplit(".", 1)[-1] not in OWN
    ]
    if strange:
        raise ValueError(
            f"expected networks that differ in {', '.join(OWN)} only, got a difference in "
            f"{', '.join(strange)}"
        )

    for name, layer in previous.named_modules():
        receiver: Any = model.get_submodule(name)
        if isinstance(layer, gaussian.Penalised):
            changes = not posteriors or getattr(receiver, "own", None) != layer.own
        else:
            # masked weights are not 0 where momentum has moved them
            changes = isinstance(layer, Masked)
        if changes:
            with torch.no_grad():
                receiver.weight.copy_(layer.weight_in_evaluation)

    kinds = {key.rsplit(".", 1)[-1] for key in previous.state_dict()}
    has_masks = any(key.endswith("mask") for key in model.state_dict())
    if has_masks and not kinds.isdisjoint(gaussian.OWN):
        cplx.deploy_masks(model, cplx.relevance_masks(previous, threshold))
    return has_masks and not kinds.isdisjoint(OWN)


# -- compression -----------------------------------------------------------------------------------


def counts(model: nn.Module, threshold: float) -> dict[str, Any]:
    """Parameters and zeros of a network in real numbers, in all and by layer, for scores.json."""
    layers: dict[str, dict[str, int]] = {}
    for name, (n_zero, n_par) in cplx.sparsity(model, threshold).items():
        layer = layers.setdefault(name.rpartition(".")[0], {"n_par": 0, "n_zero": 0})
        layer["n_par"] += n_par
        layer["n_zero"] += n_zero

    return {
        "n_par": sum(layer["n_par"] for layer in layers.values()),
        "n_zero": sum(layer["n_zero"] for layer in layers.values()),
        "compression": cplx.compression(model, threshold),
        "layers": layers,
    }


# -- stages that other runs have finished ----------------------------------------------------------


def read_snapshot(folder: RunFolder, shared: Shared) -> dict[str, Any] | None:
    """The snapshot of a stage in a run's folder.

    None if it was not finished under the same key, or was saved without optimiser state and the
    next stage goes on with it.

    Raises:
        ValueError: the snapshot is damaged.
    """
    path = folder.snapshot(shared.number, shared.name)
    if not path.exists():
        return None

    snapshot = files.read_tensors(path)
    lacking = shared.goes_on and snapshot.get("optimizer") is None
    if snapshot.get("key") != shared.key or lacking:
        return None

    if "history" not in snapshot:  # of before 2026-11-23
        lines = []
        with contextlib.suppress(ValueError):  # a damaged history is no fault of the snapshot
            lines = [line for line in folder.history if line["stage"] == shared.name]
        snapshot["history"] = json.dumps(lines)
    return snapshot


def from_others(
    folders: Iterable[RunFolder], into: RunFolder, shared: Shared
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """A stage from the first of other runs' folders that has finished it; None if none has.

    Its snapshot is copied to `into`, the folder of this run. One that cannot be read is passed
    over: its own run says so. Returns the snapshot and the stage's entry in scores.json.

    Raises:
        OSError: the copy cannot be written.
        ClaimLost: `into` is another process's by now.
    """
    for folder in folders:
        try:
            finished = folder.written_status().get("stages", {})
            if finished.get(shared.name, {}).get("key") != shared.key:
                continue
            result = (folder.scores or {}).get("stages", {}).get(shared.name, {})
            snapshot = read_snapshot(folder, shared)
            if result.get("key") != shared.key or snapshot is None:
                continue
            origin = result["reused_from"] or folder.path.name
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue

        # a full disk, or the claim lost to another process, is this run's own end
        place = (shared.number, shared.name)
        files.share(folder.snapshot(*place), into.snapshot(*place), check=into.check)
        return snapshot, result | {"reused_from": origin}
    return None


def of_kin(manifest: Manifest, folder: Path) -> list[Path]:
    """The runs' folders in another grid that may have stages of the run in `folder`.

    Of an edited manifest: those in its original's grid, the original's own first. Of another: those
    of the edits of its grid.
    """
    grid = folder.resolve().parent
    if manifest.parent is None:
        return neighbours(grid.with_name(grid.name + EDITED) / f"{folder.name}.json")

    original = grid.parent / manifest.parent
    return [original, *neighbours(original.with_name(f"{original.name}.json"))]


def neighbours(manifest: Path) -> list[Path]:
    """The runs' folders of the other manifests in this one's folder."""
    return [
        path.with_suffix("")
        for path in sorted(manifest.parent.glob("*.json"))
        if path.name != manifest.name
    ]
