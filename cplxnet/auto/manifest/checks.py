"""Faults that no key has by itself: keywords of components, and stages in their order."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from .errors import ABSENT, Fault, nearest, one_of, shown, type_faults
from .schema import MAX_FLOAT32, Dataset, Manifest, Optimizer, Schedule
from .vocabulary import KL, Vocabulary

Row = Mapping[str, Any]

SOFT = "bce_with_logits"  # the loss whose targets a teacher can soften

# what building a component from unusable values raises
UNUSABLE = (TypeError, ValueError, LookupError, ArithmeticError, RuntimeError)


def check(raw: Row, vocabulary: Vocabulary) -> Iterator[Fault]:
    """The faults between the parts of a manifest.

    Args:
        raw: the manifest as written, with ABSENT (which is false) in the place of each value that
            is a fault by itself. Nothing further is said of those.
        vocabulary: what its components take.
    """
    yield from _windows(raw.get("datasets") or {})
    yield from _order(raw.get("stages") or {}, raw.get("stage_order") or [])

    model = raw.get("model") or {}
    yield from _keywords("model", model, vocabulary)
    for name, stage in (raw.get("stages") or {}).items():
        if stage:
            yield from _stage(f"stages.{name}", stage, model, raw, vocabulary)

    yield from _sequence(raw, vocabulary)


def _windows(datasets: Row) -> Iterator[Fault]:
    """All windows have the length of the first dataset's: the network is built for one length."""
    default = Dataset.model_fields["window"].default
    windows = {name: row.get("window", default) for name, row in datasets.items() if row}
    windows = {name: window for name, window in windows.items() if window}
    first = next(iter(windows), "")
    for name, window in windows.items():
        if window != windows[first]:
            accepted = f"{windows[first]}, as in datasets.{first}"
            yield Fault(f"datasets.{name}.window", "a different window", window, accepted)


def _order(stages: Row, order: list[Any]) -> Iterator[Fault]:
    """Each stage stands in `stage_order` once."""
    for k, name in enumerate(order):
        if name and name in order[:k]:
            yield Fault(f"stage_order.{k}", "a stage for the second time", name, "each stage once")
    for name, stage in stages.items():
        if order and stage and name not in order:
            problem = "a stage that stage_order leaves out"
            yield Fault(f"stages.{name}", problem, name, "every stage in stage_order")


# -- one stage -------------------------------------------------------------------------------------


def _stage(path: str, stage: Row, model: Row, raw: Row, vocabulary: Vocabulary) -> Iterator[Fault]:
    # the manifest's model with the stage's changes on top, less the faults that the manifest's has
    change = stage.get("model") or {}
    faults_of_manifest = {fault.path for fault in _keywords(f"{path}.model", model, vocabulary)}
    for fault in _keywords(f"{path}.model", {**model, **change}, vocabulary):
        if fault.path not in faults_of_manifest or fault.path.rpartition(".")[2] in change:
            yield fault

    optimizer = {"name": Optimizer().name, **(stage.get("optimizer") or {})}
    declared = tuple(Optimizer.model_fields)
    yield from _keywords(f"{path}.optimizer", optimizer, vocabulary, declared)
    for key in ("lr_scheduler", "kl_scheduler"):
        yield from _keywords(f"{path}.{key}", stage.get(key) or {}, vocabulary)

    terms = _terms(stage, raw)
    losses = [loss for _, _, loss, _ in terms]
    is_known = stage.get("objective") is not ABSENT and all(losses)
    if stage.get("kl_scheduler") and is_known and KL not in losses:
        problem = "a schedule of the KL terms' weights in a stage that has none"
        accepted = f"null, or a {shown(KL)} term in {path}.objective"
        yield Fault(f"{path}.kl_scheduler", problem, stage["kl_scheduler"], accepted)

    # training multiplies a term by weight times coefficient, in float32
    for term, weight, _, coef in terms:
        if weight and coef and float(weight) * float(coef) > MAX_FLOAT32:
            problem = f"beyond float32 when multiplied by the term's coef, {shown(coef)}"
            accepted = f"at most {MAX_FLOAT32 / coef:.3g}"
            yield Fault(f"{path}.objective.{term}", problem, weight, accepted)


def _terms(stage: Row, raw: Row) -> list[tuple[str, Any, Any, Any]]:
    """The terms of a stage's objective: name, weight, the name of the loss, and its coefficient."""
    term_specs = raw.get("objective_terms") or {}
    weights = (stage.get("objective") or {}).items()
    rows = [(term, weight, term_specs.get(term) or {}) for term, weight in weights]
    return [(term, weight, row.get("name"), row.get("coef")) for term, weight, row in rows]


def _keywords(
    path: str, component: Row, vocabulary: Vocabulary, declared: tuple[str, ...] = ("name",)
) -> Iterator[Fault]:
    """Keywords that the component named in `component` does not take.

    `declared` are no keywords.
    """
    options = {
        key: value
        for key, value in component.items()
        if key not in declared and value is not ABSENT
    }
    keywords = vocabulary.options.get(str(component.get("name")))
    if keywords is None:
        return

    try:
        # as JSON, where a list is right for arguments that are lists and that are tuples
        keywords.model_validate_json(json.dumps(options))
    except ValidationError as error:
        yield from type_faults(error, keywords, path, also=declared)


# -- stages in their order -------------------------------------------------------------------------


def _sequence(raw: Row, vocabulary: Vocabulary) -> Iterator[Fault]:
    """What a stage asks of its network and of the stages before it, and cannot have."""
    stages = raw.get("stages") or {}
    order = [name for name in dict.fromkeys(raw.get("stage_order") or []) if stages.get(name)]
    if not order:
        return

    first = stages[order[0]]
    if "feed" not in first:
        accepted = "the name of a feed (the first stage names one)"
        yield Fault(f"stages.{order[0]}.feed", "missing key", accepted=accepted)

    hands_masks = False  # whether the stage before may have variational layers, or masks
    previous = _optimizer(first)
    for k, name in enumerate(order):
        path = f"stages.{name}"
        stage = stages[name]
        model = {**(raw.get("model") or {}), **(stage.get("model") or {})}.get("name")
        if model:
            yield from _network(path, stage, model, raw, vocabulary)
        yield from _earlier(path, stage, order[:k])
        yield from _distill(path, stage, raw)
        yield from _gradual(path, {"early": first.get("early"), **stage})

        is_masked = vocabulary.is_masked(model)
        if is_masked and stage.get("pruner") is None:
            if not hands_masks:
                problem = "a masked model with no variational stage before, nor a masked one"
                accepted = "a variational or masked model in the stage just before, or a pruner"
                yield Fault(f"{path}.model.name", problem, model, accepted)
            elif stage.get("reset") is True:
                problem = "a masked model that starts afresh, without masks"
                yield Fault(f"{path}.reset", problem, True, "false, or a pruner")
        hands_masks = not model or is_masked or model in vocabulary.variational_models
        hands_masks = hands_masks or stage.get("pruner") is not None  # a fault by itself

        optimizer = _optimizer(stage if "optimizer" in stage else first)
        if stage.get("restart") is False:
            yield from _state(f"{path}.restart", previous, optimizer)
        previous = optimizer


def _optimizer(stage: Row) -> Row:
    """A stage's optimiser with its name, which is ABSENT where either is a fault by itself."""
    optimizer = stage.get("optimizer", {})
    return {"name": ABSENT} if optimizer is ABSENT else {"name": Optimizer().name, **optimizer}


def _state(path: str, before: Row, after: Row) -> Iterator[Fault]:
    """The state of the optimiser `before` that the one `after` cannot go on with."""
    old, new = before["name"], after["name"]
    if old and new and old != new:
        problem = f"the state of {shown(old)} cannot go on in {shown(new)}"
        yield Fault(path, problem, False, "true")
    elif before.get("amsgrad", False) is False and after.get("amsgrad") is True:
        problem = "the state of an optimizer without amsgrad cannot go on in one with it"
        yield Fault(path, problem, False, "true")


def _network(
    path: str, stage: Row, model: str, raw: Row, vocabulary: Vocabulary
) -> Iterator[Fault]:
    """Keys and KL terms for layers that the stage's network has not got."""
    variational = vocabulary.variational_models
    channels = vocabulary.channel_models
    is_masked = vocabulary.is_masked(model)
    # key, its value where it asks for nothing, what it asks for, and which networks have that
    needs = (
        ("log_sigma2", None, "variational layers", model in variational, variational),
        ("kl_channels", 1, "KL of channels", model in channels, channels),
        ("shrink", False, "masks", is_masked, None),
        ("pruner", None, "masks", is_masked, None),
    )
    for key, off, layers, has_them, names in needs:
        value = stage.get(key, off)
        if not has_them and value not in (off, {}) and value is not ABSENT:
            networks = "a masked network" if names is None else one_of(names)
            accepted = f"{shown(off)}, or as {path}.model.name {networks}"
            yield Fault(f"{path}.{key}", f"{model} has no {layers}", value, accepted)

    for term, weight, loss, _ in _terms(stage, raw):
        if weight and loss == KL and model not in variational:
            problem = f"a KL term weighs on {model}, which has no variational layers"
            accepted = f"0, or as {path}.model.name {one_of(variational)}"
            guess = nearest(f"{model}VD", variational)
            yield Fault(f"{path}.objective.{term}", problem, weight, accepted, guess)


def _earlier(path: str, stage: Row, earlier: list[str]) -> Iterator[Fault]:
    """Another stage's network is looked at before it is trained."""
    for part, key in (("distill", "teacher"), ("pruner", "like")):
        name = (stage.get(part) or {}).get(key)
        if name and name not in earlier:
            problem = "a stage that is not before this one"
            yield Fault(f"{path}.{part}.{key}", problem, name, one_of(earlier))


def _distill(path: str, stage: Row, raw: Row) -> Iterator[Fault]:
    """A teacher beside a loss whose targets it cannot soften."""
    losses = [loss for _, weight, loss, _ in _terms(stage, raw) if weight]
    others = [loss for loss in losses if loss and loss not in (SOFT, KL)]
    if stage.get("distill") and others:
        problem = f"soft targets beside the loss {shown(others[0])}"
        accepted = f"null, or the loss {shown(SOFT)}"
        yield Fault(f"{path}.distill", problem, stage["distill"], accepted)


def _gradual(path: str, stage: Row) -> Iterator[Fault]:
    """Gradual pruning that is cut short, or whose network has a fixed shape."""
    if (stage.get("pruner") or {}).get("name") != "gradual":
        return

    if stage.get("n_epochs") == 0:
        yield Fault(f"{path}.n_epochs", "no epoch to prune in", 0, "1 at least")
    if stage["early"]:
        problem = "early stopping while weights are pruned"
        yield Fault(f"{path}.early", problem, stage["early"], "null")
    if stage.get("shrink") is True:
        accepted = "false while weights are pruned"
        yield Fault(f"{path}.shrink", "a shape that changes", True, accepted)


# -- what only building tells ----------------------------------------------------------------------


def build(manifest: Manifest, vocabulary: Vocabulary) -> Iterator[Fault]:
    """The faults that come to light when each stage's optimiser, schedule and network are built."""
    before: Mapping[str, tuple[int, ...]] | None = None  # weights of the stage before
    layers: dict[str, set[str]] = {}  # of each stage so far

    for stage in manifest.all_stages():
        path = f"stages.{stage.name}"
        written = manifest.stages[stage.name].model_fields_set
        rates = {"lr": stage.optimizer.lr, "lr_log_sigma2": stage.optimizer.lr_log_sigma2}
        if "optimizer" in written:
            yield from _trial(f"{path}.optimizer", stage.optimizer, rates, vocabulary)
        epochs = {"n_epochs": max(stage.n_epochs, 1)}
        for key in ("lr_scheduler", "kl_scheduler"):
            schedule = getattr(stage, key)
            if key in written and schedule is not None:
                yield from _trial(f"{path}.{key}", schedule, epochs, vocabulary)

        network = stage.model.model_dump()
        try:
            weights = vocabulary.weights(stage.model, manifest.features, manifest.window)
        except UNUSABLE as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            problem = "a network that cannot be built"
            yield Fault(f"{path}.model", problem, network, f"one that can ({reason})")
            return  # the next stage's is probably the same
        if before is not None and not stage.reset and weights != before:
            shapes = {**before, **weights}
            key = next(key for key in shapes if before.get(key) != weights.get(key))
            problem = "a network that cannot take the weights of the stage before"
            accepted = f'the same architecture, or "reset": true ({key} differs)'
            yield Fault(f"{path}.model", problem, network, accepted)
        before = weights

        layers[stage.name] = {key.rpartition(".")[0] for key in weights}
        like = stage.pruner.like if stage.pruner else None
        if like is not None and not layers[stage.name] <= layers[like]:
            lacking = min(layers[stage.name] - layers[like])
            problem = f"a stage whose network lacks the layer {shown(lacking)}"
            yield Fault(f"{path}.pruner.like", problem, like, "a stage of the same architecture")


def _trial(
    path: str, component: Optimizer | Schedule, given: Row, vocabulary: Vocabulary
) -> Iterator[Fault]:
    """The keyword of an optimiser or a schedule, or the whole, that nothing can be built with."""
    options = component.kwargs
    trial = vocabulary.trials.get(component.name)
    # nothing to try where all is at its default, and torch's first optimiser takes seconds
    if not options or trial is None:
        return

    reason = _failure(trial, {**given, **options})
    if reason:
        alone = (key for key in options if _failure(trial, {**given, key: options[key]}))
        key = next(alone, "")
        value = options.get(key, component.model_dump())
        accepted = f"what {component.name} can be built with ({reason})"
        yield Fault(f"{path}.{key}".rstrip("."), "unusable value", value, accepted)


def _failure(trial: Callable[..., object], options: Row) -> str:
    """Why nothing can be built from `options`; empty if it can."""
    try:
        trial(**options)
    except UNUSABLE as error:
        return str(error) or type(error).__name__
    return ""
