"""The experiments of this study as data: a template, the values that vary, and their names.

A preset is what `cplxnet.auto.grid.expand` takes: ``grid.expand(**PRESETS["demo"]())`` is a grid of
manifests. `extra/design.md` says what they are for.
"""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Preset = dict[str, Any]

C = "stages.sparsify.objective.kl_div"  # the grids' variable: the weight of the KL term
FORM = "stages.sparsify.model.name"

TEMPLATE: dict[str, Any] = json.loads(Path(__file__).with_name("template.json").read_bytes())

# `width` of the real DeepConvNet: as many real numbers as the complex one has; on real and
# imaginary parts as many real multiply-adds, four in a complex one
SAME_SIZE, SAME_COST = 1.257, 1.38
# rates of the real network's first two stages: best on validation, see extra/settled.md
REAL_LR, REAL_SPARSIFY_LR = 5e-4, 1e-3


def _values(mantissas: Sequence[float], exponents: Sequence[int]) -> list[float]:
    # parsed, not multiplied: 7.5 * 1e-5 is 7.500000000000001e-05
    return [float(f"{mantissa}e{exponent}") for exponent in exponents for mantissa in mantissas]


VALUES_1 = [*_values((1.0, 2.5, 5.0, 7.5), (-5, -4, -3, -2)), 1.0]
VALUES_2 = [value for value in _values((2.5, 3.75, 6.75, 8.75), (-3, -2)) if value not in VALUES_1]


def experiment_1() -> Preset:
    """The coarse grid: 17 values of C, each replicated 5 times."""
    return _preset(TEMPLATE, VALUES_1, title="experiment-1", replicates=5)


def experiment_2() -> Preset:
    """The finer grid where the curve bends: 6 more values of C, each replicated 5 times."""
    return _preset(TEMPLATE, VALUES_2, title="experiment-2", replicates=5)


def demo(
    values: Sequence[float] = (0.005, 0.02, 0.08),
    *,
    replicates: int = 1,
    lr_log_sigma2: float | None = None,
    **shorter: Any,
) -> Preset:
    """The grid of `make demo`: the same three stages on the demo corpus, in minutes.

    Args:
        values: of C.
        replicates: of each value.
        lr_log_sigma2: learning rate of log_sigma2 while sparsifying; None: that of the weights.
        shorter: options of `_shorter`.
    """
    raw = _shorter(**shorter)
    dense = raw["stages"]["dense"]
    dense["lr_scheduler"] = {"name": "cosine", "final": 0.01}
    if lr_log_sigma2 is not None:
        own = {**dense["optimizer"], "lr_log_sigma2": lr_log_sigma2}
        raw["stages"]["sparsify"]["optimizer"] = own
    return _preset(raw, values, title="demo", replicates=replicates)


def reference(
    values: Sequence[float] = (0.003, 0.02, 0.05, 0.1, 0.2, 0.4),
    *,
    forms: Sequence[str] = ("VD",),
    replicates: int = 2,
) -> Preset:
    """The grid whose results are kept in `runs/reference`: VD on the reference corpus.

    Longer stages than the demo's, each with one cosine down to 0.01 of its learning rate. Early
    stopping only watches for a fall of 0.1: every second epoch is scored, and no schedule is long
    enough for its patience. log_sigma2 starts at -10 and must reach where weights die in 500 steps
    of Adam, and the weights must decide as fast: hence the rates. The dense network teaches both
    stages after it. What each of these changes by itself is in extra/reference.md.

    Args:
        values, replicates: as of `demo`.
        forms: of the network while sparsifying.
    """
    raw = _shorter(folder="reference", n_epochs=(30, 10, 14))
    dense = raw["stages"]["dense"]
    dense["lr_scheduler"] = {"name": "cosine", "final": 0.01}
    dense["early"] |= {"patience": 100, "cooldown": 1, "atol": 0.1}
    distill = {"teacher": "dense", "temperature": 2.0}

    sparsify, fine_tune = raw["stages"]["sparsify"], raw["stages"]["fine-tune"]
    sparsify["optimizer"] = {**dense["optimizer"], "lr": 4e-3, "lr_log_sigma2": 1e-2}
    sparsify["distill"] = distill
    fine_tune["optimizer"] = {**dense["optimizer"], "lr": 8e-3}
    fine_tune["distill"] = distill
    fine_tune["shrink"] = True

    def form(varied: Mapping[str, Any]) -> str:
        return varied[FORM].removeprefix(raw["model"]["name"])

    return {
        "template": raw,
        "grid": {FORM: [raw["model"]["name"] + form for form in forms], C: list(values)},
        "replicates": replicates,
        "label": lambda varied: f"{form(varied).lower()}-{label(varied)}",
        "title": lambda varied: (
            f"reference {form(varied)} C={varied[C]:g} replicate {varied['seed']}"
        ),
    }


def structured() -> Preset:
    """Networks that lose whole channels: `reference` with noise of channels."""
    rows = [("complex.DeepConvNetGroupVD", 35.0, 1.0), ("complex.DeepConvNetBothVD", 0.1, 100.0)]
    return {**reference(), "grid": {(FORM, C, "stages.sparsify.kl_channels"): rows}}


def settled(
    values: Sequence[float] = (0.003, 0.02, 0.05, 0.1, 0.2, 0.4),
    *,
    l0_values: Sequence[float] = (0.5, 5.0),
    sparsities: Sequence[float] = (0.98, 0.9945, 0.9965, 0.998),
    replicates: int = 2,
) -> Preset:
    """Which pruner is best, and whether complex is worth it: `reference` with other contestants.

    The complex network is sparsified by VD, ARD and L0; pruned by modulus, gradually over the whole
    network or layer by layer, or in one shot; and trained anew under random masks with VD's
    sparsity of each layer, for as long as all three stages take. VD also sparsifies real networks
    of the complex one's size or cost on real and imaginary parts, one of its size on moduli, and
    the complex one on random phases.

    Args:
        values: of C, for VD: those of `reference`, with the same results.
        l0_values: of C, for L0, whose penalty of a weight is at most 1.
        sparsities: that pruners of the whole network end at.
        replicates: of each.
    """
    raw = reference()["template"]
    usual: dict[str, Any] = {
        "model": raw["model"],
        "features.kind": "fft",
        "features.cplx": True,
        FORM: "complex.DeepConvNetVD",
        C: 0.0,
        "stages.dense.optimizer.lr": raw["stages"]["dense"]["optimizer"]["lr"],
        "stages.sparsify.optimizer.lr": raw["stages"]["sparsify"]["optimizer"]["lr"],
        "stages.sparsify.optimizer.lr_log_sigma2": 1e-2,
        "stages.sparsify.pruner": None,
        "stages.fine-tune.model.name": "complex.DeepConvNetMasked",
        "stages.fine-tune.pruner": None,
        "stages.fine-tune.reset": False,
        "stages.fine-tune.n_epochs": raw["stages"]["fine-tune"]["n_epochs"],
        "stages.fine-tune.optimizer.lr": raw["stages"]["fine-tune"]["optimizer"]["lr"],
        "stages.fine-tune.early": raw["stages"]["dense"]["early"],
    }
    masked = {FORM: "complex.DeepConvNetMasked"}
    gates = {FORM: "complex.DeepConvNetL0", "stages.sparsify.optimizer.lr_log_sigma2": 5e-2}
    anew = {
        "stages.fine-tune.pruner": {"name": "random", "like": "sparsify"},
        "stages.fine-tune.reset": True,
        "stages.fine-tune.n_epochs": sum(one["n_epochs"] for one in raw["stages"].values()),
    }
    slowly = {"stages.sparsify.optimizer.lr": 5e-4}  # extra/settled.md
    # a network that has to find its way again first falls by more than early stopping allows
    patiently = {"stages.fine-tune.early": {**raw["stages"]["dense"]["early"], "atol": 1.0}}
    by_layer = {"name": "gradual", "by_layer": True}
    pruners: list[tuple[str, dict[str, Any], dict[str, Any], Sequence[float]]] = [
        ("gradual", {"name": "gradual"}, slowly, sparsities),
        # fewer: a small layer is soon without a path
        ("gradual-by-layer", by_layer, slowly | patiently, (0.9, 0.98)),
        ("one-shot", {"name": "one-shot"}, {}, sparsities),
    ]
    real = {"real-same-size": _real(SAME_SIZE), "real-same-cost": _real(SAME_COST)}
    deaf = {  # to phases
        "real-moduli": {**_real(SAME_SIZE), "features.cplx": False},
        "random-phase": {"features.kind": "fft-random-phase"},
    }

    contestants: dict[str, dict[str, Any]] = {}
    for c in values:
        contestants[f"vd-{_c(c)}"] = {C: c}
    for c in (0.02, 0.1, 0.4):
        contestants[f"ard-{_c(c)}"] = {C: c, FORM: "complex.DeepConvNetARD"}
    for families, of_c in ((real, (0.02, 0.05, 0.2)), (deaf, (0.02, 0.1))):
        for c in of_c:
            contestants |= {f"{family}-{_c(c)}": {C: c, **own} for family, own in families.items()}
    nothing = {"name": "one-shot", "sparsity": 0.0}  # dense, trained for as long as all others
    contestants["one-shot-s0"] = {**masked, "stages.sparsify.pruner": nothing}
    contestants["real-same-size-s0"] = {
        **_real(SAME_SIZE),
        FORM: "real.DeepConvNetMasked",
        "stages.sparsify.pruner": nothing,
        "stages.fine-tune.optimizer.lr": REAL_SPARSIFY_LR,  # 8e-3 undoes it: AP 0.18
    }
    contestants |= {f"random-{_c(c)}": {C: c, **anew} for c in (0.1, 0.4)}
    contestants |= {f"l0-{_c(c)}": {C: c, **gates} for c in l0_values}
    for which, pruner, own, targets in pruners:
        for sparsity in targets:
            target = {"stages.sparsify.pruner": {**pruner, "sparsity": sparsity}}
            contestants[f"{which}-s{sparsity:g}"] = masked | own | target

    together = [tuple((usual | own).values()) for own in contestants.values()]
    names = dict(zip(map(repr, together), contestants, strict=True))

    def contestant(varied: Mapping[str, Any]) -> str:
        return names[repr(tuple(varied[path] for path in usual))]

    return {
        "template": {**raw, "name": "settled"},
        "grid": {tuple(usual): together},
        "replicates": replicates,
        "label": lambda varied: f"{contestant(varied)}-r{varied['seed']}",
        "title": lambda varied: f"settled {contestant(varied)} replicate {varied['seed']}",
    }


def _real(width: float) -> dict[str, Any]:
    """A real network of this width at all stages, sparsified by VD."""
    return {
        "model": {"name": "real.DeepConvNet", "width": width},
        FORM: "real.DeepConvNetVD",
        "stages.dense.optimizer.lr": REAL_LR,
        "stages.sparsify.optimizer.lr": REAL_SPARSIFY_LR,
        "stages.fine-tune.model.name": "real.DeepConvNetMasked",
    }


def tiny(*, folder: str = "tiny", model: str = "complex.TwoLayerDense") -> Preset:
    """One manifest of three stages of two epochs of three batches, for tests."""
    return {
        "template": _shorter(folder, model, n_batches=3, n_epochs=(2, 2, 2), batch_size=16),
        "grid": {},
        "label": lambda varied: "tiny",
        "title": lambda varied: "tiny",
    }


PRESETS: dict[str, Callable[..., Preset]] = {
    "experiment-1": experiment_1,
    "experiment-2": experiment_2,
    "reference": reference,
    "structured": structured,
    "settled": settled,
    "demo": demo,
    "tiny": tiny,
}


# --- what they take

# network -> (windows, milliseconds) of a training step on an H200 in float32, as one CUDA graph: by
# `python -m extra.benchmarks.gpu`, see extra/benchmarks/gpu.md
GPU_STEP_MS = {
    "complex.DeepConvNet": ((32, 1.13), (321, 3.32)),
    "complex.DeepConvNetMasked": ((32, 1.21), (321, 3.42)),
    "complex.DeepConvNetVD": ((32, 1.80), (321, 5.26)),
    "complex.DeepConvNetARD": ((32, 1.79), (321, 5.25)),
}


# --- what they share


def label(varied: Mapping[str, Any]) -> str:
    """c2.5e-03-r0: the file name of a manifest of these grids."""
    return f"{_c(varied[C])}-r{varied['seed']}"


def _c(value: float) -> str:
    mantissa, exponent = _in_digits(value)
    return f"c{mantissa}e{exponent:+03d}"


def _in_digits(value: float) -> tuple[str, int]:
    """Mantissa in the fewest digits, and exponent."""
    mantissa, _, exponent = f"{value:.15e}".partition("e")
    return f"{float(mantissa):.15g}", int(exponent)


def _preset(
    raw: Mapping[str, Any], values: Sequence[float], *, title: str, replicates: int
) -> Preset:
    def name(varied: Mapping[str, Any]) -> str:
        mantissa, exponent = _in_digits(varied[C])
        return f"{title} C={mantissa}e{exponent} replicate {varied['seed']}"

    return {
        "template": {**copy.deepcopy(raw), "name": title},
        "grid": {C: list(values)},
        "replicates": replicates,
        "label": label,
        "title": name,
    }


def _shorter(
    folder: str = "demo",
    model: str = "complex.DeepConvNet",
    *,
    n_batches: int = 50,
    n_epochs: Sequence[int] = (10, 5, 3),
    batch_size: int = 128,
) -> dict[str, Any]:
    """TEMPLATE with fewer steps and fewer scored windows.

    Args:
        folder: of the corpus, in the data folder.
        model: the network's dense form.
        n_batches: in an epoch.
        n_epochs: of dense, sparsify and fine-tune.
        batch_size: windows scored at a time.
    """
    raw = copy.deepcopy(TEMPLATE)
    raw["model"] = {"name": model}

    for name, dataset in raw["datasets"].items():
        dataset["file"] = f"{folder}/{dataset['file']}"
        dataset["stride"] = 1 if name == "train" else 4096

    raw["feeds"]["train"]["n_batches"] = n_batches
    raw["feeds"]["valid"]["batch_size"] = batch_size
    raw["feeds"]["test"]["batch_size"] = batch_size

    for stage, epochs in zip(raw["stages"].values(), n_epochs, strict=True):
        stage["n_epochs"] = epochs
    raw["stages"]["sparsify"]["model"] = {"name": f"{model}VD"}
    raw["stages"]["fine-tune"]["model"] = {"name": f"{model}Masked"}
    return raw
