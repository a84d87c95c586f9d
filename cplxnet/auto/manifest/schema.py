"""The keys of a manifest as frozen, strict pydantic models: type, range, default, meaning.

`extra/design.md` explains them with examples; the description of a key that has to be there is what
a fault says of it where it is missing. A name that refers to something (`Known`) is looked
up in the context of validation, a dict from what it refers to ("feed") to the names known
(`vocabulary.Vocabulary.names`). Without a context, any name is taken.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sized
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from cplxnet import DEFAULT_TASK, files

from .errors import unknown
from .vocabulary import TABLES

SCHEMA = 1  # the version of manifests that is read and written
MAX_WHOLE = 2**53  # greater whole numbers are not exact in every reader of JSON
MAX_FLOAT32 = (2 - 2**-23) * 2.0**127

# Keys added when there were finished runs: dotted path, * for any name -> default. At its default
# such a key is left out of resolved manifests, so old fingerprints and keys of stages stay.
LATER = {
    "products": "float32",
    "compile": False,
    "cuda_graph": None,
    "stages.*.kl_scheduler": None,
    "stages.*.kl_channels": 1.0,
    "stages.*.distill": None,
    "stages.*.log_sigma2": None,
    "stages.*.shrink": False,
    "stages.*.pruner": None,
}

# a stage without one of these has the first stage's
INHERITED = ("feed", "grad_clip", "optimizer", "lr_scheduler", "early")

K = TypeVar("K")
V = TypeVar("V")


class FrozenDict(dict[K, V]):
    """A dict that cannot be changed."""

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("a manifest is frozen; try cplxnet.auto.grid.edit(manifest, {path: value})")

    __setitem__ = __delitem__ = update = pop = popitem = clear = setdefault = __ior__ = _refuse  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)


def leaves(raw: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted path of each value in `raw` that is no object, and the value."""
    for key, value in raw.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, tuple(value) if isinstance(value, list) else value


def _without_later(part: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """The part of a manifest at `place` ("stages.*.", say) without keys of `LATER` at defaults."""
    kept = {}
    for key, value in part.items():
        path = place + ("*" if place.rstrip(".") in TABLES.values() else key)
        if isinstance(value, Mapping):
            value = _without_later(value, f"{path}.")
        if path not in LATER or LATER[path] != value:
            kept[key] = value
    return kept


def canonical(value: Any) -> str:
    """`value` as JSON on one line, keys sorted: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


# -- kinds of values -------------------------------------------------------------------------------


def _check_schema(version: int) -> int:
    if version != SCHEMA:
        raise ValueError(str(SCHEMA))
    return version


def _check_file(file: str) -> str:
    posix = PurePosixPath(file)
    windows = PureWindowsPath(file)
    leads_out = posix.is_absolute() or windows.anchor or ".." in windows.parts
    if leads_out or not posix.name or "\x00" in file:
        raise ValueError("a path relative to the data folder, without '..'")
    return file


def _check_option(value: Any) -> Any:
    """A keyword argument from JSON: a list becomes a tuple."""
    if isinstance(value, (list, tuple)):
        return tuple(_check_scalar(item) for item in value)
    return _check_scalar(value)


def _check_scalar(value: Any) -> Any:
    if isinstance(value, int) and abs(value) > MAX_WHOLE:
        raise ValueError(f"a whole number of at most {MAX_WHOLE}")
    is_finite = not isinstance(value, float) or math.isfinite(value)
    if is_finite and (value is None or isinstance(value, (bool, int, float, str))):
        return value
    raise ValueError("null, true, false, a finite number, a string, or a list of those")


def _check_not_empty(value: Sized) -> Sized:
    # pydantic's min_length counts the usable items alone, and adds a fault to theirs
    if not value:
        raise ValueError("at least one")
    return value


def Known(what: str) -> AfterValidator:
    """A name that refers to a `what`, looked up in the context."""

    def check(name: str, info: ValidationInfo) -> str:
        known = (info.context or {}).get(what)
        if known is not None and name not in known:
            raise PydanticCustomError("unknown_name", "unknown", {"what": what, "known": known})
        return name

    return AfterValidator(check)


Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+$", max_length=100)]  # of a file
Keyword = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Line = Annotated[str, StringConstraints(min_length=1, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]
Parent = Annotated[str, StringConstraints(pattern=r"^[^/.\pC][^/\pC]*/[^/.\pC][^/\pC]*$")]
File = Annotated[str, AfterValidator(_check_file)]
Option = Annotated[Any, AfterValidator(_check_option)]
NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0, le=MAX_FLOAT32)]
Share = Annotated[float, Field(ge=0, le=1)]
Whole = Annotated[int, Field(ge=0, le=MAX_WHOLE)]
Count = Annotated[int, Field(ge=1, le=MAX_WHOLE)]
Table = Annotated[dict[Name, V], AfterValidator(FrozenDict)]
Weights = Annotated[
    dict[Annotated[Name, Known("objective term")], Weight],
    AfterValidator(_check_not_empty),
    AfterValidator(FrozenDict),
]
Order = Annotated[
    tuple[Annotated[Name, Known("stage")], ...],
    Field(strict=False),
    AfterValidator(_check_not_empty),
]


# -- the parts of a manifest -----------------------------------------------------------------------


class Part(BaseModel):
    """Base of all parts: no other keys, no conversion of types, finite, no change afterwards."""

    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=()
    )


class Open(Part):
    """A part that may carry further keyword arguments for the component it names."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[Keyword, Option] = Field(init=False)

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keys beside the declared ones: what the named component is called with."""
        return dict(self.__pydantic_extra__)


class Dataset(Part):
    """Windows of one HDF5 file."""

    file: File = Field(description="an HDF5 file, relative to the data folder")
    window: Count = 4096  # samples
    stride: Count = 128  # samples between the starts of two windows


class Features(Part):
    """What a network is given of a window."""

    kind: Annotated[str, Known("feature kind")] = Field(description="the name of a feature kind")
    cplx: bool = True  # complex features; false: magnitudes
    shift: bool = True  # zero frequency in the centre


class Feed(Part):
    """Batches of a dataset."""

    dataset: Annotated[str, Known("dataset")] = Field(description="the name of a dataset")
    sampler: Annotated[str, Known("sampler")] = Field(description="the name of a sampler")
    n_batches: Count | None = None  # batches an epoch, for a sampler without an end
    batch_size: Count | None = None  # windows a batch, for a sampler that takes each once

    @model_validator(mode="after")
    def _one_size(self) -> Feed:
        if (self.n_batches is None) == (self.batch_size is None):
            raise ValueError("either n_batches or batch_size, not both")
        return self


class Scorer(Part):
    """Scores on every window of a feed."""

    feed: Annotated[str, Known("feed")] = Field(description="the name of a feed")
    curves: bool = False  # keep the precision-recall curve


class Term(Part):
    """A term of the objective: multiplied by `coef` and by its weight in a stage."""

    name: Annotated[str, Known("loss")] = Field(description='the name of a loss, or "kl"')
    reduction: Literal["sum", "mean"] | None = None  # null: the loss's own
    coef: Weight = 1.0  # multiplies the term in every stage


class Model(Open):
    """The network of all stages."""

    name: Annotated[str, Known("model")] = Field(description="the name of a model")


class ModelChange(Open):
    """What a stage's network has of its own."""

    name: Annotated[str, Known("model")] = ""  # the name of a model; absent: the manifest's


class Optimizer(Open):
    """An optimiser and its keyword arguments."""

    name: Annotated[str, Known("optimizer")] = "adam"  # the name of an optimizer
    lr: Positive = 1e-3  # learning rate at the start of the stage
    lr_log_sigma2: Positive | None = None  # that of log_sigma2; null: lr


class Schedule(Open):
    """A schedule of the learning rate or of the KL's weight, and its keyword arguments."""

    name: Annotated[str, Known("lr_scheduler")] = Field(description="the name of an lr_scheduler")


class Distill(Part):
    """A term of the objective: a trained network's outputs, softened, as targets."""

    teacher: Annotated[str, Known("stage")] = Field(description="the name of an earlier stage")
    weight: Weight = 1.0  # multiplies the term
    temperature: Positive = 1.0  # divides both networks' logits


class Pruner(Part):
    """What masks the weights of a masked network."""

    name: Literal["gradual", "one-shot", "random"] = Field(
        description="least modulus first, step by step or at once; or weights at random, at once"
    )
    # share of the weights that is masked in the end
    sparsity: Annotated[float, Field(ge=0, lt=1)] | None = None
    # an earlier stage, which has the sparsity of each layer
    like: Annotated[str, Known("stage")] | None = None
    by_layer: bool = False  # each layer has the same sparsity
    initial: Share = 0.0  # sparsity at which gradual pruning begins
    begin: Share = 0.0  # part of the stage before gradual pruning
    end: Share = 0.8  # part of the stage at which it is over
    every: Count = 10  # steps from one pruning to the next

    @model_validator(mode="after")
    def _fits(self) -> Pruner:
        if (self.sparsity is None) == (self.like is None):
            raise ValueError("either sparsity or like, not both")
        if self.begin >= self.end:
            raise ValueError("begin before end")
        if self.sparsity is not None and self.initial > self.sparsity:
            raise ValueError("initial at most sparsity")
        return self


class Early(Part):
    """Stop at a score below ``best - max(rtol*|best|, atol)`` or after `patience` without best."""

    scorer: Annotated[str, Known("scorer")] = Field(description="the name of a scorer")
    patience: Count = 20  # scores in a row without a new best
    cooldown: Whole = 0  # epochs skipped between two scorings
    rtol: NotNegative = 0.0  # tolerance, relative to the best score
    atol: NotNegative = 0.02  # tolerance, absolute
    restore_best: bool = False  # end with the best weights; false: with the last


class StageSpec(Part):
    """A stage as written. What is `INHERITED` may be left out: see `Stage`."""

    feed: Annotated[str, Known("feed")] = ""  # the name of a feed
    n_epochs: Whole = Field(description="epochs at most")
    # what differs from the manifest's model
    model: ModelChange = Field(default_factory=ModelChange)
    restart: bool = True  # a fresh optimizer; false: the last stage's state goes on
    reset: bool = False  # fresh weights; false: the last stage's
    grad_clip: Positive | None = None  # largest gradient norm; null: any
    objective: Weights = Field(description="an object of objective terms and their weights")
    optimizer: Optimizer = Field(default_factory=Optimizer)
    lr_scheduler: Schedule | None = None  # null: constant
    early: Early | None = None  # null: off
    kl_scheduler: Schedule | None = None  # of the KL terms' weights; null: constant
    kl_channels: Weight = 1.0  # multiplies the KL of channels, beside that of single weights
    distill: Distill | None = None  # null: off
    log_sigma2: Annotated[float, Field(ge=-60, le=20)] | None = None  # at the start; null: -10
    shrink: bool = False  # train on the shape that the masks leave
    pruner: Pruner | None = None  # null: masks of the stage before


class Stage(StageSpec):
    """A stage with every key filled in.

    `model` is the manifest's with the stage's changes on top. A key of `INHERITED` that the stage
    does not write has the value of the *first* stage in `stage_order`, whole. (Not of the stage
    before: sparsify's ``"early": null`` switches early stopping off for itself, and fine-tune has
    it on.)
    """

    name: str = Field(description="its key in the manifest")

    def to_dict(self) -> dict[str, Any]:
        """The stage as JSON values without its name, in the schema's order.

        Every key but those of `LATER` at their defaults: what stages share goes by this.
        """
        return _without_later(self.model_dump(mode="json", exclude={"name"}), "stages.*.")


class Manifest(Part):
    """One experiment.

    Equality compares what was written: a default that is spelt out differs from one that is left
    out, but the `fingerprint` is the same. The attribute of the key "schema" is `schema_`.
    """

    schema_: Annotated[int, AfterValidator(_check_schema)] = Field(alias="schema", description="1")
    task: Annotated[str, Known("task")] = DEFAULT_TASK  # the name of a task
    name: Line = Field(description="a name for people, on one line")
    parent: Parent | None = None  # the manifest that this one is an edit of, as GRID/NAME
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0  # of all randomness
    threshold: float = -0.5  # a weight with a greater log_alpha is irrelevant
    samples: Literal["float32", "float16", "int16"] = "float32"  # how the data are held in memory
    # what matrix products and convolutions multiply
    products: Literal["float32", "tf32", "bfloat16"] = "float32"
    compile: bool = False  # the forward pass by torch.compile
    cuda_graph: bool | None = None  # steps as one CUDA graph; null: where that is faster
    datasets: Table[Dataset] = Field(description="an object of datasets")
    features: Features = Field(description="an object with the key kind")
    feeds: Table[Feed] = Field(description="an object of feeds")
    scorers: Table[Scorer] = Field(description="an object of scorers")
    objective_terms: Table[Term] = Field(description="an object of objective terms")
    model: Model = Field(description="an object with the key name")
    stages: Table[StageSpec] = Field(description="an object of stages")
    stage_order: Order = Field(description="a list of the stages' names")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Manifest) and self._written == other._written

    def __hash__(self) -> int:
        return hash(self._written)

    @property
    def _written(self) -> str:
        return canonical(self.to_dict())

    def stage(self, name: str) -> Stage:
        """The stage `name` with every key filled in.

        Raises:
            KeyError: no such stage.
        """
        if name not in self.stages:
            raise KeyError(str(unknown(f"stages.{name}", name, known=self.stages, what="stage")))

        spec = self.stages[name]
        first = self.stages[self.stage_order[0]]
        values = {key: getattr(spec, key) for key in StageSpec.model_fields}
        for key in INHERITED:
            if key not in spec.model_fields_set:
                values[key] = getattr(first, key)

        changes = spec.model.model_dump(exclude_unset=True)
        values["model"] = ModelChange(**{**self.model.model_dump(), **changes})
        return Stage(name=name, **values)

    @property
    def window(self) -> int:
        """Samples of a window, one length in all datasets."""
        return next(iter(self.datasets.values())).window

    def all_stages(self) -> list[Stage]:
        """The stages, filled in, in the order in which they run."""
        return [self.stage(name) for name in self.stage_order]

    def to_dict(self) -> dict[str, Any]:
        """The manifest as written, as JSON values, keys in the schema's order."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    def flatten(self) -> dict[str, Any]:
        """Dotted path -> value, with every default and every inherited key written out.

        Each path can be changed by `cplxnet.auto.edit`. A list is one value (a tuple).
        """
        return dict(leaves(self.whole()))

    def whole(self) -> dict[str, Any]:
        """The manifest as JSON values, with every default and every inherited key written out."""
        stages = {
            stage.name: stage.model_dump(mode="json", exclude={"name"})
            for stage in self.all_stages()
        }
        return self.model_dump(mode="json", by_alias=True, exclude={"stages"}) | {"stages": stages}

    def resolved(self) -> Manifest:
        """The same experiment with every default and every inherited key written out.

        Outside of stages null is not; nor are the keys of `LATER` at their defaults.
        """
        return self._resolved

    @functools.cached_property
    def _resolved(self) -> Manifest:
        whole = self.model_dump(mode="json", by_alias=True, exclude={"stages"}, exclude_none=True)
        stages = {stage.name: stage.to_dict() for stage in self.all_stages()}
        return Manifest.model_validate(_without_later(whole) | {"stages": stages})

    def fingerprint(self) -> str:
        """sha256 (hexadecimal) of the resolved manifest as JSON with sorted keys."""
        return hashlib.sha256(self.resolved()._written.encode()).hexdigest()

    def to_json(self) -> str:
        """The text that `save` writes."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"

    def save(self, path: str | Path) -> None:
        """Write the manifest to `path`, whole or not at all; ``load(path)`` gives an equal one."""
        files.write_text(path, self.to_json())
