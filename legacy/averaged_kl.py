"""The first grid search as manifests, for `legacy_generator.ipynb`.

Trabelsi et al. replicated, compression with the KL averaged within each layer, and a study on the
demo corpus of what the averaging does. `legacy/README.md` tells what is theirs and what is ours.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from cplxnet.auto.manifest import grid
from cplxnet.auto.manifest.grid import METHOD, REDUCTION, C
from cplxnet.auto.manifest.read import Manifest, parse
from cplxnet.musicnet.experiments import TEMPLATE, label

N_EPOCHS = 200  # of 1000 batches, as Trabelsi et al.
# Of the complex DeepConvNet's first layer in the first search. Trabelsi et al. have 6.
KERNEL_SIZE = 3
# Which network takes which features. Short-time spectra are 70 frames long, too short for either
# convolutional network.
NETWORKS = {
    "raw": {"shallow": "ShallowConvNet", "deep": "DeepConvNet"},
    "fft": {"shallow": "ShallowConvNet", "deep": "DeepConvNet"},
    "stft": {"dense": "TwoLayerDense"},
}


def replication(*, replicates: int = 1) -> dict[str, Manifest]:
    """Trabelsi et al. again: each feature kind, real and complex, on each network that takes it.

    One stage of 200 epochs of 1000 batches, Adam on their schedule, no clipping, no early stopping,
    frequency zero at the left (no shift), the first kernel of the complex deep network 3.

    Args:
        replicates: seeds of each.

    Returns:
        {file's name: manifest}.

    Reference: Trabelsi et al. (2018), "Deep Complex Networks", section 4.2.
    """
    settings = [
        (kind, field, depth)
        for kind, networks in NETWORKS.items()
        for field in ("real", "complex")
        for depth in networks
    ]

    manifests: dict[str, Manifest] = {}
    for kind, field, depth in settings:
        raw = _first_search(kind, field, NETWORKS[kind][depth])
        raw |= {"stages": {"dense": raw["stages"]["dense"]}, "stage_order": ["dense"]}
        del raw["objective_terms"]["kl_div"]
        for seed in range(replicates):
            raw |= {"name": f"legacy replication {kind} {field} {depth} replicate {seed}"}
            manifests[f"{kind}-{field}-{depth}-r{seed}"] = parse(
                {**raw, "seed": seed}, source=raw["name"]
            )
    return manifests


def compression(
    values: Sequence[float] = (1e2, 1e3, 1e4, 1e5, 1e6),
    *,
    forms: Sequence[str] = ("VD", "ARD"),
    replicates: int = 1,
) -> dict[str, Manifest]:
    """The deep networks on Fourier transforms, compressed with the KL averaged within each layer.

    The dense stage is that of `replication`, the other two have today's number of epochs (75, 50).

    Args:
        values: of C. They are large because a mean over the 7.6 million weights of the largest
            layer is that many times smaller than their sum.
        forms: of the posterior.
        replicates: as in `replication`.

    Returns:
        {file's name: manifest}, real and complex.
    """

    def field_and_form(varied: Mapping[str, Any]) -> tuple[str, str]:
        field, _, network = varied[METHOD].partition(".")
        return field, network.removeprefix("DeepConvNet")

    def file_name(varied: Mapping[str, Any]) -> str:
        field, form = field_and_form(varied)
        return f"{field}-{form.lower()}-{label(varied)}"

    def title(varied: Mapping[str, Any]) -> str:
        field, form = field_and_form(varied)
        return f"legacy compression {field} {form} C={varied[C]:g} replicate {varied['seed']}"

    manifests: dict[str, Manifest] = {}
    for field in ("complex", "real"):
        raw = _first_search("fft", field, "DeepConvNet")
        axes = {METHOD: [f"{field}.DeepConvNet{form}" for form in forms], C: list(values)}
        manifests |= grid.expand(raw, axes, replicates=replicates, label=file_name, title=title)
    return manifests


def study(
    sums: Sequence[float] = (0.005, 0.02, 0.08),
    means: Sequence[float] = (1e3, 1e4, 1e5),
    *,
    lr_log_sigma2: float = 0.01,
    **options: Any,
) -> dict[str, Manifest]:
    """The grid of `make demo` under both reductions: today's network, minutes, one replicate.

    Args:
        sums: values of C under "sum".
        means: values of C under "mean".
        lr_log_sigma2: ten times lr, so that 250 steps are enough for log_sigma2 to move.
        options: of `experiments.demo`.

    Returns:
        {file's name: manifest}.
    """
    options["lr_log_sigma2"] = lr_log_sigma2

    manifests: dict[str, Manifest] = {}
    for how, values in (("sum", sums), ("mean", means)):
        for name, manifest in grid.demo(values, **options).items():
            heading = manifest.name.replace("demo", f"legacy study {how}", 1)
            changes = {"name": heading, REDUCTION: how}
            manifests[f"{how}-{name}"] = grid.edit(manifest, changes)
    return manifests


def _first_search(kind: str, field: str, network: str) -> dict[str, Any]:
    """The template with the settings of the first search; a real network takes magnitudes."""
    raw = copy.deepcopy(TEMPLATE)
    raw["features"] = {"kind": kind, "cplx": field == "complex", "shift": False}
    raw["objective_terms"]["kl_div"]["reduction"] = "mean"

    raw["model"] = {"name": f"{field}.{network}"}
    if raw["model"]["name"] == "complex.DeepConvNet":
        raw["model"]["kernel_size"] = KERNEL_SIZE

    raw["stages"]["dense"] |= {"n_epochs": N_EPOCHS, "grad_clip": None, "early": None}
    raw["stages"]["sparsify"]["model"] = {"name": f"{field}.{network}VD"}
    raw["stages"]["fine-tune"]["model"] = {"name": f"{field}.{network}Masked"}
    return raw
