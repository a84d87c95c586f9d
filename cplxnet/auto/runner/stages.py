"""What one stage takes over from the one before: weights, masks and optimiser state; and what identifies a stage."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import nn

from cplxnet import nn as cplx
from cplxnet.auto.manifest.read import Manifest, Stage

OWN = ("log_sigma2", "mask")  # what one kind of layer has and another of the same shape has not


def seed_of(manifest: Manifest, stage: str, purpose: str) -> int:
    """A seed of 63 bits for one purpose in one stage, so that a stage's result depends on nothing trained elsewhere."""
    digest = hashlib.blake2b(f"{manifest.seed}/{stage}/{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def key_of(
    manifest: Manifest, stage: str, *, previous: str | None, data: dict[str, str], device: str
) -> str:
    """A fingerprint of all that a stage's result and scores depend on: two stages with one key have one result.

    previous: the key of the stage before, None for the first; data: fingerprint of each dataset by its name.
    """
    settings = manifest.stage(stage).to_dict()
    weighed = {term: weight for term, weight in settings["objective"].items() if weight != 0}
    whole = manifest.resolved().to_dict()  # defaults written out: leaving one out changes nothing
    parts: dict[str, Any] = {
        "stage": settings | {"objective": weighed},
        "terms": {term: whole["objective_terms"][term] for term in weighed},
        "device": torch.device(device).type,
        "torch": torch.__version__,
        **{
            name: whole[name]
            for name in ("task", "seed", "threshold", "datasets", "features", "feeds", "scorers")
        },
        **{name: whole[name] for name in ("products", "compile") if name in whole},
    }
    text = json.dumps({**parts, "data": data, "previous": previous}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class Shared(NamedTuple):
    """What two manifests have in common where they share a stage."""

    key: str  # without looking at data
    goes_on: bool  # the next stage goes on with its optimiser's state


def planned(manifest: Manifest) -> Iterator[tuple[Stage, Shared]]:
    """Every stage in order, and what it shares with other manifests' stages."""
    key = None
    for stage in manifest.all_stages():
        key = key_of(manifest, stage.name, previous=key, data={}, device="cpu")
        yield stage, Shared(key, optimizer_goes_on(manifest, stage.name))


def optimizer_goes_on(manifest: Manifest, stage: str) -> bool:
    """Whether the stage after this one goes on with its optimiser's state; without that the snapshot leaves it out."""
    order = manifest.stage_order
    after = order[order.index(stage) + 1 :]
    return bool(after) and not manifest.stage(after[0]).restart


def inherit(model: nn.Module, previous: nn.Module, *, threshold: float) -> bool:
    """Copy weights from `previous`, and where `model` has masks, mask what is irrelevant there.

    A variational network hands over its posterior means, and masks of the weights with log_alpha <= threshold; a masked
    one its masks. Returns whether masks were inherited.

    Raises ValueError where the two networks differ in more than the kind of their layers.
    """
    try:
        result = model.load_state_dict(previous.state_dict(), strict=False)
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
            f"expected networks that differ in {' and '.join(OWN)} only, got a difference in {', '.join(strange)}"
        )
    kinds = {key.rsplit(".", 1)[-1] for key in previous.state_dict()}
    has_masks = any(key.endswith("mask") for key in model.state_dict())
    if has_masks and "log_sigma2" in kinds:
        cplx.deploy_masks(model, cplx.relevance_masks(previous, threshold))
    return has_masks and not kinds.isdisjoint(OWN)


def counts(model: nn.Module, threshold: float) -> dict[str, Any]:
    """Parameters and zeros of a network in real numbers, in all and by layer, for scores.json."""
    layers: dict[str, dict[str, int]] = {}
    for name, (n_zero, n_par) in cplx.sparsity(model, threshold).items():
        layer = layers.setdefault(name.rpartition(".")[0], {"n_par": 0, "n_zero": 0})
        layer["n_par"] += n_par
        layer["n_zero"] += n_zero
    n_par, n_zero = (sum(layer[key] for layer in layers.values()) for key in ("n_par", "n_zero"))
    return {
        "n_par": n_par,
        "n_zero": n_zero,
        "compression": cplx.compression(model, threshold),
        "layers": layers,
    }
