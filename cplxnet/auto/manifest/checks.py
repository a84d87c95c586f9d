"""What types cannot say of a manifest: that each name in it means something, that its stages can follow one another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import Fault, nearest, one_of, shown, unknown

INHERITED = (
    "feed",
    "grad_clip",
    "optimizer",
    "lr_scheduler",
    "early",
)  # a stage without one has the first stage's
KL = "kl"  # the loss that sums the KL divergence of variational layers; every task has it


@dataclass(frozen=True)
class Vocabulary:
    """The names of a task's components: what a manifest may ask for.

    Args:
        models: every model; variational_models: those with a KL; masked_models: those with masks (None: those
            whose name ends in "Masked").
        samplers, features, losses, optimizers, lr_schedulers: the other components.
        options: component name -> keywords it takes; a component that is not here takes any.
        task: the name that the manifest's key "task" must have.
    """

    models: tuple[str, ...]
    variational_models: tuple[str, ...]
    samplers: tuple[str, ...]
    features: tuple[str, ...]
    losses: tuple[str, ...]
    optimizers: tuple[str, ...]
    lr_schedulers: tuple[str, ...]
    masked_models: tuple[str, ...] | None = None
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    task: str = "musicnet"

    def is_masked(self, model: object) -> bool:
        if self.masked_models is None:
            return str(model).endswith("Masked")
        return model in self.masked_models


def check(raw: Mapping[str, Any], vocabulary: Vocabulary) -> Iterator[Fault]:
    """Every dangling reference and impossible order in `raw`, a manifest as read; what is ill-typed is passed over."""
    yield from _named("", raw, "task", [vocabulary.task], "task")
    yield from _tables(raw, vocabulary)
    yield from _windows(raw)
    yield from _component("model", raw.get("model"), vocabulary.models, "model", vocabulary)
    stages = {
        name: stage for name, stage in _table(raw, "stages").items() if isinstance(stage, Mapping)
    }
    yield from _order(raw)
    for name, stage in stages.items():
        yield from _stage(raw, f"stages.{name}", stage, vocabulary)
    order = raw.get("stage_order")
    names = (
        [name for name in order if isinstance(name, str) and name in stages]
        if isinstance(order, list)
        else []
    )
    yield from _sequence(raw, stages, list(dict.fromkeys(names)), vocabulary)


def _table(raw: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = raw.get(key)
    return value if isinstance(value, Mapping) else {}


def _known(raw: Mapping[str, Any], key: str) -> Iterable[str] | None:
    """The names that the table `key` defines; None (nothing dangles) where it is missing or ill-typed."""
    return _table(raw, key) if isinstance(raw.get(key), Mapping) else None


def _rows(raw: Mapping[str, Any], key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield from (
        (f"{key}.{name}", row) for name, row in _table(raw, key).items() if isinstance(row, Mapping)
    )


def _named(
    path: str, row: Any, key: str, known: Iterable[str] | None, what: str
) -> Iterator[Fault]:
    """The fault of `row[key]` if it is a string that is none of `known`."""
    name = row.get(key) if isinstance(row, Mapping) else None
    if isinstance(name, str) and known is not None and name not in known:
        yield unknown(f"{path}.{key}".lstrip("."), name, known=known, what=what)


def _component(
    path: str,
    row: Any,
    known: Iterable[str],
    what: str,
    vocabulary: Vocabulary,
    fixed: tuple[str, ...] = (),
) -> Iterator[Fault]:
    """The faults of a component: its name, and its keywords where the vocabulary knows them (`fixed`: always there)."""
    yield from _named(path, row, "name", known, what)
    name = row.get("name") if isinstance(row, Mapping) else None
    if isinstance(name, str) and name in vocabulary.options:
        takes = ["name", *fixed, *vocabulary.options[name]]
        yield from (
            unknown(f"{path}.{key}", key, known=takes, what="key")
            for key in row
            if key not in takes
        )


def _tables(raw: Mapping[str, Any], vocabulary: Vocabulary) -> Iterator[Fault]:
    yield from _named("features", raw.get("features"), "kind", vocabulary.features, "feature kind")
    for path, row in _rows(raw, "feeds"):
        yield from _named(path, row, "dataset", _known(raw, "datasets"), "dataset")
        yield from _named(path, row, "sampler", vocabulary.samplers, "sampler")
    for path, row in _rows(raw, "scorers"):
        yield from _named(path, row, "feed", _known(raw, "feeds"), "feed")
    for path, row in _rows(raw, "objective_terms"):
        yield from _named(path, row, "name", dict.fromkeys([*vocabulary.losses, KL]), "loss")


def _windows(raw: Mapping[str, Any]) -> Iterator[Fault]:
    """All datasets have windows of the first one's length: the network is built for one length."""
    windows = [(path, row.get("window", 4096)) for path, row in _rows(raw, "datasets")]
    windows = [(path, window) for path, window in windows if isinstance(window, int) and window > 0]
    for path, window in windows[1:]:
        if window != windows[0][1]:
            yield Fault(
                f"{path}.window",
                "a different window",
                window,
                f"{windows[0][1]}, as in {windows[0][0]}",
            )


def _order(raw: Mapping[str, Any]) -> Iterator[Fault]:
    order, known = raw.get("stage_order"), _known(raw, "stages")
    if not isinstance(order, list) or known is None:
        return
    for k, name in enumerate(order):
        if isinstance(name, str) and name not in known:
            yield unknown(f"stage_order.{k}", name, known=known, what="stage")
        elif name in order[:k]:
            yield Fault(f"stage_order.{k}", "a stage for the second time", name, "each stage once")
    for name in known:
        if name not in order:
            yield Fault(
                f"stages.{name}",
                "a stage that stage_order leaves out",
                name,
                "every stage in stage_order",
            )


def _stage(
    raw: Mapping[str, Any], path: str, stage: Mapping[str, Any], vocabulary: Vocabulary
) -> Iterator[Fault]:
    yield from _named(path, stage, "feed", _known(raw, "feeds"), "feed")
    yield from _stage_model(raw, f"{path}.model", _table(stage, "model"), vocabulary)
    fixed = ("lr", "lr_log_sigma2")
    optimizer, schedule = stage.get("optimizer"), stage.get("lr_scheduler")
    yield from _component(
        f"{path}.optimizer", optimizer, vocabulary.optimizers, "optimizer", vocabulary, fixed
    )
    yield from _component(
        f"{path}.lr_scheduler", schedule, vocabulary.lr_schedulers, "lr_scheduler", vocabulary
    )
    yield from _named(
        f"{path}.early", stage.get("early"), "scorer", _known(raw, "scorers"), "scorer"
    )
    terms = _known(raw, "objective_terms")
    for term in _table(stage, "objective"):
        if terms is not None and term not in terms:
            yield unknown(f"{path}.objective.{term}", term, known=terms, what="objective term")


def _stage_model(
    raw: Mapping[str, Any], path: str, change: Mapping[str, Any], vocabulary: Vocabulary
) -> Iterator[Fault]:
    """Faults of the manifest's model with the stage's changes on top, less those that the manifest's has already."""
    top = _table(raw, "model")
    before = {fault.value for fault in _component("", top, vocabulary.models, "model", vocabulary)}
    for fault in _component(path, {**top, **change}, vocabulary.models, "model", vocabulary):
        written = fault.path.removeprefix(f"{path}.") in change
        if written or fault.value not in before:
            yield fault


def _sequence(
    raw: Mapping[str, Any], stages: Mapping[str, Any], order: list[str], vocabulary: Vocabulary
) -> Iterator[Fault]:
    """Faults of the stages in their order: a feed for the first, KL only where layers have one, masks only after it."""
    if order and "feed" not in stages[order[0]]:
        yield Fault(
            f"stages.{order[0]}.feed",
            "missing key",
            accepted="the name of a feed (the first stage names one)",
        )
    variational = False
    for k, name in enumerate(order):
        path, model = f"stages.{name}", _model(raw, stages[name])
        known = (
            model in vocabulary.models
        )  # of a model that is unknown, which is a fault of its own, all may be true
        variational = variational or not known or model in vocabulary.variational_models
        if known and model not in vocabulary.variational_models:
            yield from _kl(raw, path, stages[name], str(model), vocabulary)
        if vocabulary.is_masked(model) and not variational:
            accepted = "a stage with a variational model earlier in stage_order"
            yield Fault(
                f"{path}.model.name",
                "a masked model with no variational stage before",
                model,
                accepted,
            )
        here, before = (_optimizer(stages[order[i]], stages[order[0]]) for i in (k, max(k - 1, 0)))
        if stages[name].get("restart") is False and here != before:
            yield Fault(
                f"{path}.restart",
                f"the state of {shown(before)} cannot go on in {shown(here)}",
                False,
                "true",
            )


def _model(raw: Mapping[str, Any], stage: Mapping[str, Any]) -> object:
    return _table(stage, "model").get("name", _table(raw, "model").get("name"))


def _optimizer(stage: Mapping[str, Any], first: Mapping[str, Any]) -> object:
    return _table(stage if "optimizer" in stage else first, "optimizer").get("name", "adam")


def _kl(
    raw: Mapping[str, Any], path: str, stage: Mapping[str, Any], model: str, vocabulary: Vocabulary
) -> Iterator[Fault]:
    """KL terms that weigh on a model without KL: a sparsify stage without variational layers."""
    terms = _table(raw, "objective_terms")
    for term, weight in _table(stage, "objective").items():
        if (
            _table(terms, term).get("name") == KL
            and isinstance(weight, (int, float))
            and weight > 0
        ):
            problem = f"a KL term weighs on {model}, which has no variational layers"
            accepted = f"0, or as {path}.model.name {one_of(vocabulary.variational_models)}"
            guess = nearest(f"{model}VD", vocabulary.variational_models)
            yield Fault(f"{path}.objective.{term}", problem, weight, accepted, guess)
