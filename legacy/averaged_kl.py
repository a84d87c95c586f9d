"""The first grid search as manifests: Trabelsi et al. replicated, and compression with the KL averaged in each layer.

What is theirs and what is today's is told in `legacy/README.md`. The study of what the averaging does, on the demo
corpus, is `study`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cplxnet.auto.manifest import experiments, grid
from cplxnet.auto.manifest.experiments import METHOD, REDUCTION, TEMPLATE, C
from cplxnet.auto.manifest.read import Manifest, Vocabulary, parse

N_EPOCHS = 200  # Trabelsi et al., of 1000 batches
KERNEL_SIZE = (
    3  # of the first layer of the complex DeepConvNet in the first search; Trabelsi et al. have 6
)
# which network hears what; short-time spectra are 70 frames long, too short for either convolutional network
NETWORKS = {
    "raw": {"shallow": "ShallowConvNet", "deep": "DeepConvNet"},
    "fft": {"shallow": "ShallowConvNet", "deep": "DeepConvNet"},
    "stft": {"dense": "TwoLayerDense"},
}


def replication(*, replicates: int = 1, task: Vocabulary | None = None) -> dict[str, Manifest]:
    """Trabelsi et al. again: each feature kind, real and complex, on each network that can hear it; one stage.

    200 epochs of 1000 batches, Adam on their schedule, no clipping, no early stopping, frequency zero at the left (no
    shift), the first kernel of the complex deep network 3.

    Reference: Trabelsi et al. (2018), "Deep Complex Networks", section 4.2.
    """
    made: dict[str, Manifest] = {}
    for kind, field, depth in _cells():
        raw = _first_search(kind, field, NETWORKS[kind][depth])
        raw |= {"stages": {"dense": raw["stages"]["dense"]}, "stage_order": ["dense"]}
        del raw["objective_terms"]["kl_div"]
        for seed in range(replicates):
            name = f"legacy replication {kind} {field} {depth} replicate {seed}"
            made[f"{kind}-{field}-{depth}-r{seed}"] = parse(
                {**raw, "name": name, "seed": seed}, task=task, source=name
            )
    return made


def compression(
    values: Sequence[float] = (1e2, 1e3, 1e4, 1e5, 1e6),
    *,
    forms: Sequence[str] = ("VD", "ARD"),
    replicates: int = 1,
    task: Vocabulary | None = None,
) -> dict[str, Manifest]:
    """The deep networks of `replication` on Fourier transforms, compressed with the KL averaged within each layer.

    Real and complex, VD and ARD, over `values` of C. The dense stage is that of `replication`, the other two have
    today's number of epochs (75, 50). C is large because a mean over the 7.6 million weights of the largest layer is
    that many times smaller than their sum.
    """
    made: dict[str, Manifest] = {}
    for field in ("complex", "real"):
        raw = _first_search("fft", field, "DeepConvNet")
        made |= _grid(
            raw,
            {METHOD: [f"{field}.DeepConvNet{form}" for form in forms], C: list(values)},
            replicates,
            task,
        )
    return made


def study(
    sums: Sequence[float] = (0.005, 0.02, 0.08),
    means: Sequence[float] = (1e3, 1e4, 1e5),
    *,
    lr_log_sigma2: float = 0.01,
    task: Vocabulary | None = None,
    **options: Any,
) -> dict[str, Manifest]:
    """The grid of `make demo` under both reductions: today's network and schedule of minutes, one replicate.

    sums, means: the values of C under "sum" and under "mean". lr_log_sigma2: ten times lr, so that 250 steps are enough
    for log_sigma2 to move. options: as of `experiments.demo`.
    """
    options["lr_log_sigma2"] = lr_log_sigma2
    made: dict[str, Manifest] = {}
    for how, values in (("sum", sums), ("mean", means)):
        for name, manifest in experiments.demo(values, task=task, **options).items():
            heading = manifest.name.replace("demo", f"legacy study {how}", 1)
            made[f"{how}-{name}"] = grid.edit(
                manifest, {"name": heading, REDUCTION: how}, task=task
            )
    return made


def _cells() -> Iterator[tuple[str, str, str]]:
    for kind, networks in NETWORKS.items():
        for field in ("real", "complex"):
            for depth in networks:
                yield kind, field, depth


def _first_search(kind: str, field: str, network: str) -> dict[str, Any]:
    """TEMPLATE with the settings of the first search; a real network hears magnitudes, or the signal itself."""
    raw = copy.deepcopy(TEMPLATE)
    raw["features"] = {"kind": kind, "cplx": field == "complex", "shift": False}
    raw["objective_terms"]["kl_div"]["reduction"] = "mean"
    kernel = {"kernel_size": KERNEL_SIZE} if (field, network) == ("complex", "DeepConvNet") else {}
    raw["model"] = {"name": f"{field}.{network}", **kernel}
    raw["stages"]["dense"] |= {"n_epochs": N_EPOCHS, "grad_clip": None, "early": None}
    for stage, form in (("sparsify", "VD"), ("fine-tune", "Masked")):
        raw["stages"][stage]["model"] = {"name": f"{field}.{network}{form}"}
    return raw


def _grid(
    raw: Mapping[str, Any],
    axes: Mapping[str, Sequence[Any]],
    replicates: int,
    task: Vocabulary | None,
) -> dict[str, Manifest]:
    def which(varied: Mapping[str, Any]) -> tuple[str, str]:
        field, _, network = varied[METHOD].partition(".")
        return field, network.removeprefix("DeepConvNet")

    def file(varied: Mapping[str, Any]) -> str:
        field, form = which(varied)
        return f"{field}-{form.lower()}-{experiments.label(varied)}"

    def title(varied: Mapping[str, Any]) -> str:
        return "legacy compression {} {} C={:g} replicate {}".format(
            *which(varied), varied[C], varied["seed"]
        )

    return grid.expand(raw, axes, replicates=replicates, label=file, title=title, task=task)
