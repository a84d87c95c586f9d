"""The parts of a manifest (DESIGN 5) as frozen, strict pydantic models: keys, types and ranges."""

from __future__ import annotations

import math
import re
from pathlib import PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

K = TypeVar("K")
V = TypeVar("V")


class FrozenDict(dict[K, V]):
    """A dict that cannot be changed."""

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("a manifest is frozen; try cplxnet.auto.grid.edit(manifest, {path: value})")

    __setitem__ = __delitem__ = update = pop = popitem = clear = setdefault = __ior__ = _refuse  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)


def _relative(file: str) -> str:
    posix, windows = PurePosixPath(file), PureWindowsPath(file)
    if (
        posix.is_absolute()
        or windows.anchor
        or ".." in windows.parts
        or not posix.name
        or "\x00" in file
    ):
        raise ValueError("a path relative to the data folder, without '..'")
    return file


def _option(value: Any) -> Any:
    """A keyword argument from JSON: null, true, false, a finite number, a string, or a list of those (as tuple)."""
    if isinstance(value, (list, tuple)):
        return tuple(_scalar(item) for item in value)
    return _scalar(value)


def _scalar(value: Any) -> Any:
    finite = not isinstance(value, float) or math.isfinite(value)
    utf8 = not isinstance(value, str) or not re.search("[\ud800-\udfff]", value)
    if finite and utf8 and (value is None or isinstance(value, (bool, int, float, str))):
        return value
    raise ValueError("null, true, false, a finite number, a string, or a list of those")


Name = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+$")
]  # a key of a table: also part of file names
Keyword = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Text = Annotated[str, StringConstraints(min_length=1, pattern=r"^[^\x00-\x1f]+$")]  # on one line
File = Annotated[str, AfterValidator(_relative)]
Option = Annotated[Any, AfterValidator(_option)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Table = Annotated[dict[Name, V], AfterValidator(FrozenDict)]


class Part(BaseModel):
    """Base of all parts: no other keys, no conversion of types, no change afterwards."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", protected_namespaces=())


class Open(Part):
    """A part that may carry further keyword arguments for the component it names; `kwargs` holds them."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[Keyword, Option] = Field(init=False)

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keys beside the declared ones: what the named component is called with."""
        return dict(self.__pydantic_extra__)


class Dataset(Part):
    file: File = Field(description="an HDF5 file, relative to the data folder")
    window: Count = Field(default=4096, description="samples")
    stride: Count = Field(default=128, description="samples between the starts of two windows")


class Features(Part):
    kind: str = Field(description="the name of a feature kind")
    cplx: bool = Field(default=True, description="complex features; false: magnitudes")
    shift: bool = Field(default=True, description="zero frequency in the centre")


class Feed(Part):
    dataset: str = Field(description="the name of a dataset")
    sampler: str = Field(description="the name of a sampler")
    n_batches: Count | None = Field(
        default=None, description="batches an epoch, for a sampler without an end"
    )
    batch_size: Count | None = Field(
        default=None, description="windows a batch, for a sampler that takes each once"
    )

    @model_validator(mode="after")
    def _one_size(self) -> Feed:
        if (self.n_batches is None) == (self.batch_size is None):
            raise ValueError("either n_batches or batch_size, not both")
        return self


class Scorer(Part):
    feed: str = Field(description="the name of a feed")
    curves: bool = Field(default=False, description="keep the precision-recall curve")


class Term(Part):
    name: str = Field(description='the name of a loss, or "kl"')
    reduction: Literal["sum", "mean"] | None = Field(
        default=None, description="null: the loss's own"
    )
    coef: NotNegative = Field(default=1.0, description="multiplies the term in every stage")


class Component(Open):
    name: str = Field(description="the name of a component")


class ModelChange(Open):
    name: str = Field(default="", description="the name of a model; absent: the manifest's")


class Optimizer(Open):
    name: str = Field(default="adam", description="the name of an optimizer")
    lr: Positive = Field(default=1e-3, description="learning rate at the start of the stage")
    lr_log_sigma2: Positive | None = Field(default=None, description="that of log_sigma2; null: lr")


class Early(Part):
    """Early stopping (DESIGN 4): a score below ``best - max(rtol*|best|, atol)``, or `patience` without a best."""

    scorer: str = Field(description="the name of a scorer")
    patience: Count = Field(default=20, description="scores in a row without a new best")
    cooldown: Annotated[int, Field(ge=0)] = Field(
        default=0, description="epochs skipped between two scorings"
    )
    rtol: NotNegative = 0.0
    atol: NotNegative = 0.02
    restore_best: bool = Field(
        default=False, description="end with the best weights; false: with the last"
    )


class StageSpec(Part):
    """A stage as written. `feed grad_clip optimizer lr_scheduler early` may be left out: see `manifest.Stage`."""

    feed: str = Field(default="", description="the name of a feed")
    n_epochs: Annotated[int, Field(ge=0)] = Field(description="epochs at most")
    model: ModelChange = Field(
        default_factory=ModelChange, description="what differs from the manifest's model"
    )
    restart: bool = Field(
        default=True, description="a fresh optimizer; false: the last stage's state goes on"
    )
    reset: bool = Field(default=False, description="fresh weights; false: the last stage's")
    grad_clip: Positive | None = Field(default=None, description="largest gradient norm; null: any")
    objective: Annotated[
        dict[Name, NotNegative], Field(min_length=1), AfterValidator(FrozenDict)
    ] = Field(description="an object of objective terms and their weights")
    optimizer: Optimizer = Field(default_factory=Optimizer)
    lr_scheduler: Component | None = Field(default=None, description="null: constant")
    early: Early | None = Field(default=None, description="null: off")
