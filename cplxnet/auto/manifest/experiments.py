"""The grids of this study as data: experiment-1 and -2, demo, reference; a tiny manifest for tests.

`extra/design.md` says what they are for.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from . import grid
from .read import parse
from .schema import Manifest
from .vocabulary import Vocabulary

# the variable of the grids: the weight of the KL term while sparsifying
C = "stages.sparsify.objective.kl_div"
# the variational form of the network: ...VD or ...ARD
METHOD = "stages.sparsify.model.name"
# "sum": as the ELBO has it; "mean": averaged within each layer
REDUCTION = "objective_terms.kl_div.reduction"
N_REPLICATES = 5  # of each value; replicate = seed

TEMPLATE: dict[str, Any] = {
    "schema": 1,
    "name": "template",
    "seed": 0,
    "threshold": -0.5,
    "datasets": {
        "train": {"file": "musicnet_11khz_train.h5", "window": 4096, "stride": 1},
        "valid": {"file": "musicnet_11khz_valid.h5", "window": 4096, "stride": 128},
        "test": {"file": "musicnet_11khz_test.h5", "window": 4096, "stride": 128},
    },
    "features": {"kind": "fft", "cplx": True, "shift": True},
    "feeds": {
        "train": {"dataset": "train", "sampler": "one-per-recording", "n_batches": 1000},
        "valid": {"dataset": "valid", "sampler": "in-order", "batch_size": 768},
        "test": {"dataset": "test", "sampler": "in-order", "batch_size": 256},
    },
    "scorers": {"validation": {"feed": "valid"}, "test": {"feed": "test", "curves": True}},
    "objective_terms": {
        "loss": {"name": "bce_with_logits"},
        "kl_div": {"name": "kl", "reduction": "sum", "coef": 1e-5},
    },
    "model": {"name": "complex.DeepConvNet"},
    "stages": {
        "dense": {
            "feed": "train",
            "n_epochs": 50,
            "model": {},
            "restart": True,
            "reset": False,
            "grad_clip": 0.05,
            "objective": {"loss": 1.0},
            "optimizer": {"name": "adam", "lr": 1e-3},
            "lr_scheduler": {"name": "trabelsi2017"},
            "early": {
                "scorer": "validation",
                "patience": 20,
                "cooldown": 0,
                "rtol": 0.0,
                "atol": 0.02,
            },
        },
        "sparsify": {
            "model": {"name": "complex.DeepConvNetVD"},
            "n_epochs": 75,
            "restart": False,
            "objective": {"loss": 1.0, "kl_div": 2.5e-3},
            "early": None,
        },
        "fine-tune": {
            "model": {"name": "complex.DeepConvNetMasked"},
            "n_epochs": 50,
            "restart": True,
            "objective": {"loss": 1.0},
        },
    },
    "stage_order": ["dense", "sparsify", "fine-tune"],
}


def label(values: Mapping[str, Any]) -> str:
    """c2.5e-03-r0: the file name of a manifest of these grids."""
    return f"c{grid.short(values[C])}-r{values['seed']}"


def _values(mantissas: Sequence[float], exponents: Sequence[int]) -> list[float]:
    # parsed, not multiplied: 7.5 * 1e-5 is 7.500000000000001e-05
    return [float(f"{mantissa}e{exponent}") for exponent in exponents for mantissa in mantissas]


VALUES_1 = [*_values((1.0, 2.5, 5.0, 7.5), (-5, -4, -3, -2)), 1.0]
VALUES_2 = [value for value in _values((2.5, 3.75, 6.75, 8.75), (-3, -2)) if value not in VALUES_1]


def experiment_1(*, task: Vocabulary | None = None) -> dict[str, Manifest]:
    """The coarse grid: 17 values of C, each replicated 5 times."""
    return _grid(TEMPLATE, VALUES_1, title="experiment-1", replicates=N_REPLICATES, task=task)


def experiment_2(*, task: Vocabulary | None = None) -> dict[str, Manifest]:
    """The finer grid where the curve bends: 6 more values of C, each replicated 5 times."""
    return _grid(TEMPLATE, VALUES_2, title="experiment-2", replicates=N_REPLICATES, task=task)


def demo(
    values: Sequence[float] = (0.005, 0.02, 0.08),
    *,
    replicates: int = 1,
    n_batches: int = 50,
    n_epochs: tuple[int, int, int] = (10, 5, 3),
    stride: int = 4096,
    batch_size: int = 128,
    lr: float = 1e-3,
    lr_log_sigma2: float | None = None,
    lr_scheduler: Mapping[str, Any] | None = None,
    folder: str = "demo",
    model: str = "complex.DeepConvNet",
    task: Vocabulary | None = None,
) -> dict[str, Manifest]:
    """The grid of `make demo`: the same three stages on the demo corpus, in minutes.

    Args:
        values: of C.
        replicates: of each value.
        n_batches: in an epoch.
        n_epochs: of dense, sparsify and fine-tune.
        stride: samples between scored windows.
        batch_size: windows scored at a time.
        lr: learning rate.
        lr_log_sigma2: that of log_sigma2 while sparsifying; None: lr.
        lr_scheduler: of all stages; None: cosine down to 0.01 of lr.
        folder: of the corpus, in the data folder.
        model: the network's dense form.
        task: as in `read.load`.
    """
    raw = _short(
        folder, model, n_batches=n_batches, n_epochs=n_epochs, stride=stride, batch_size=batch_size
    )
    dense = raw["stages"]["dense"]
    sparsify = raw["stages"]["sparsify"]
    dense["optimizer"] = {"name": "adam", "lr": lr}
    dense["lr_scheduler"] = dict(lr_scheduler or {"name": "cosine", "final": 0.01})
    if lr_log_sigma2 is not None:
        sparsify["optimizer"] = {**dense["optimizer"], "lr_log_sigma2": lr_log_sigma2}
    return _grid(raw, values, title="demo", replicates=replicates, task=task)


def reference(
    values: Sequence[float] = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2),
    *,
    forms: Sequence[str] = ("VD", "ARD"),
    replicates: int = 2,
    n_batches: int = 50,
    n_epochs: tuple[int, int, int] = (30, 10, 14),
    stride: int = 4096,
    batch_size: int = 128,
    lr_log_sigma2: float = 1e-2,
    lr_fine_tune: float = 2e-3,
    folder: str = "reference",
    model: str = "complex.DeepConvNet",
    task: Vocabulary | None = None,
) -> dict[str, Manifest]:
    """The grid whose results are kept in `runs/reference`: VD and ARD on the reference corpus.

    Longer stages than the demo's, each with one cosine down to 0.01 of its learning rate. Early
    stopping only watches: every second epoch is scored, and no schedule is long enough for its
    patience. Fine-tuning is long, and slower than 3e-3. For VD at C = 0.02, replicate 0 (82 times
    fewer; dense 0.974 on validation), 350 steps from 3e-3, 1e-3 and 4e-4 ended at 0.973, 0.969 and
    0.965 on validation; 700 steps from 1e-3 and 2e-3 at 0.974 and 0.977.

    Args:
        values, replicates, n_batches, n_epochs, stride, batch_size, folder, model, task: as of
            `demo`.
        forms: of the network while sparsifying.
        lr_log_sigma2: ten times the weights' rate; 500 steps of Adam at 1e-3 cannot carry
            log_sigma2 from -10 to where weights die.
        lr_fine_tune: learning rate of the last stage.
    """
    raw = _short(
        folder, model, n_batches=n_batches, n_epochs=n_epochs, stride=stride, batch_size=batch_size
    )
    dense = raw["stages"]["dense"]
    dense["lr_scheduler"] = {"name": "cosine", "final": 0.01}
    dense["early"] = {
        "scorer": "validation",
        "patience": 100,
        "cooldown": 1,
        "rtol": 0.0,
        "atol": 0.1,
    }
    raw["stages"]["sparsify"]["optimizer"] = {**dense["optimizer"], "lr_log_sigma2": lr_log_sigma2}
    raw["stages"]["fine-tune"]["optimizer"] = {**dense["optimizer"], "lr": lr_fine_tune}

    def name(varied: Mapping[str, Any]) -> str:
        form = varied[METHOD].removeprefix(model)
        return f"reference {form} C={varied[C]:g} replicate {varied['seed']}"

    def file(varied: Mapping[str, Any]) -> str:
        form = varied[METHOD].removeprefix(model)
        return f"{form.lower()}-{label(varied)}"

    axes: dict[str, list[Any]] = {METHOD: [model + form for form in forms], C: list(values)}
    return grid.expand(raw, axes, replicates=replicates, label=file, title=name, task=task)


def tiny(
    *, folder: str = "tiny", model: str = "complex.TwoLayerDense", task: Vocabulary | None = None
) -> Manifest:
    """A manifest of three stages of two epochs of three batches, for tests."""
    raw = _short(folder, model, n_batches=3, n_epochs=(2, 2, 2), stride=4096, batch_size=16)
    return parse({**raw, "name": "tiny"}, task=task, source="tiny")


def _short(
    folder: str,
    model: str,
    *,
    n_batches: int,
    n_epochs: Sequence[int],
    stride: int,
    batch_size: int,
) -> dict[str, Any]:
    """TEMPLATE on the files in `folder`, with another model, fewer steps and scored windows."""
    raw = copy.deepcopy(TEMPLATE)
    raw["model"] = {"name": model}

    for name, dataset in raw["datasets"].items():
        dataset["file"] = f"{folder}/{dataset['file']}"
        dataset["stride"] = 1 if name == "train" else stride

    raw["feeds"]["train"]["n_batches"] = n_batches
    raw["feeds"]["valid"]["batch_size"] = batch_size
    raw["feeds"]["test"]["batch_size"] = batch_size

    for stage, epochs in zip(raw["stages"].values(), n_epochs, strict=True):
        stage["n_epochs"] = epochs
    raw["stages"]["sparsify"]["model"] = {"name": f"{model}VD"}
    raw["stages"]["fine-tune"]["model"] = {"name": f"{model}Masked"}
    return raw


def _grid(
    raw: Mapping[str, Any],
    values: Sequence[float],
    *,
    title: str,
    replicates: int,
    task: Vocabulary | None,
) -> dict[str, Manifest]:
    def name(varied: Mapping[str, Any]) -> str:
        mantissa, _, exponent = grid.short(varied[C]).partition("e")
        return f"{title} C={mantissa}e{int(exponent)} replicate {varied['seed']}"

    return grid.expand(
        raw, {C: list(values)}, replicates=replicates, label=label, title=name, task=task
    )
