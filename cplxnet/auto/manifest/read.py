"""A manifest: one experiment as data (DESIGN 5). Read with `load` or `parse`, which name every fault at once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from cplxnet import files

from . import strict_json
from .checks import INHERITED, Vocabulary, check
from .errors import Fault, ManifestError, ManifestNotFoundError, unknown
from .schema import (
    Component,
    Dataset,
    Early,
    Features,
    Feed,
    Name,
    Optimizer,
    Part,
    Scorer,
    StageSpec,
    Table,
    Term,
    Text,
)
from .type_errors import type_faults

__all__ = [
    "Manifest",
    "ManifestError",
    "ManifestNotFoundError",
    "Stage",
    "Vocabulary",
    "load",
    "parse",
]

_TRANSLATED = (
    "one of this system; try `python -m cplxnet.auto translate OLD NEW`, which makes one of it"
)
LATER = {
    "products": "float32",
    "compile": False,
}  # keys added to schema 1: at their default fingerprints lack them
SCHEMA = 1  # of the manifests that this version reads and writes


@dataclass(frozen=True)
class Stage:
    """A stage with every key filled in.

    `model` is the manifest's with the stage's changes on top. Where the stage does not write `feed`, `grad_clip`,
    `optimizer`, `lr_scheduler` or `early`, it has the value of the *first* stage in `stage_order`, whole. (Not of the
    stage before: sparsify's ``"early": null`` switches early stopping off for itself, and fine-tune has it on.)

    Args:
        name: its key in the manifest.
        feed: the feed it trains on.
        n_epochs: epochs at most.
        model: `.name` and `.kwargs` for the builder.
        restart: True: a fresh optimizer; False: the previous stage's state goes on.
        reset: True: fresh weights; False: the previous stage's.
        grad_clip: largest gradient norm, or None.
        objective: term -> weight.
        optimizer: `.name`, `.lr`, `.lr_log_sigma2` (None: lr) and `.kwargs` for the rest.
        lr_scheduler: `.name` and `.kwargs`, or None for a constant rate.
        early: `.scorer .patience .cooldown .rtol .atol .restore_best`, or None for no early stopping.
    """

    name: str
    feed: str
    n_epochs: int
    model: Component
    restart: bool
    reset: bool
    grad_clip: float | None
    objective: Mapping[str, float]
    optimizer: Optimizer
    lr_scheduler: Component | None
    early: Early | None

    def to_dict(self) -> dict[str, Any]:
        """The stage as JSON values, every key there, in the order of DESIGN 5, without its name."""
        return {
            "feed": self.feed,
            "n_epochs": self.n_epochs,
            "model": self.model.model_dump(mode="json"),
            "restart": self.restart,
            "reset": self.reset,
            "grad_clip": self.grad_clip,
            "objective": dict(self.objective),
            "optimizer": self.optimizer.model_dump(mode="json"),
            "lr_scheduler": self.lr_scheduler and self.lr_scheduler.model_dump(mode="json"),
            "early": self.early and self.early.model_dump(mode="json"),
        }


def _schema(version: int) -> int:
    if version != SCHEMA:
        raise ValueError(str(SCHEMA))
    return version


class Manifest(Part):
    """One experiment. The keys are those of DESIGN 5, in its order; `schema_` is written "schema".

    Defaults of keys left out: task "musicnet", seed 0, threshold -0.5, samples and products "float32", compile false;
    those of the parts are in `parts`. Equality compares what was written: a default that is spelt out differs from one
    that is left out, but the `fingerprint` is the same.
    """

    schema_: Annotated[int, AfterValidator(_schema)] = Field(alias="schema", description="1")
    task: str = Field(default="musicnet", description="the name of a task")
    name: Text = Field(description="a name for people, on one line")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    threshold: Annotated[float, Field(allow_inf_nan=False)] = -0.5  # log_alpha above it: irrelevant
    samples: Literal["float32", "float16", "int16"] = "float32"  # how recordings are held in memory
    products: Literal["float32", "tf32", "bfloat16"] = (
        "float32"  # what matrix products and convolutions multiply
    )
    compile: bool = False  # the forward pass by torch.compile
    datasets: Table[Dataset] = Field(description="an object of datasets")
    features: Features = Field(description="an object with the key kind")
    feeds: Table[Feed] = Field(description="an object of feeds")
    scorers: Table[Scorer] = Field(description="an object of scorers")
    objective_terms: Table[Term] = Field(description="an object of objective terms")
    model: Component = Field(description="an object with the key name")
    stages: Table[StageSpec] = Field(description="an object of stages")
    stage_order: Annotated[tuple[Name, ...], Field(strict=False, min_length=1)] = Field(
        description="a list of the stages' names"
    )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Manifest) and self._written == other._written

    def __hash__(self) -> int:
        return hash(self._written)

    @property
    def _written(self) -> str:
        return strict_json.canonical(self.to_dict())

    def stage(self, name: str) -> Stage:
        """The stage `name` with every key filled in.

        Raises:
            KeyError: no such stage.
        """
        if name not in self.stages:
            raise KeyError(str(unknown(f"stages.{name}", name, known=self.stages, what="stage")))
        spec, first = self.stages[name], self.stages[self.stage_order[0]]
        source = {key: spec if key in spec.model_fields_set else first for key in INHERITED}
        inherited: dict[str, Any] = {key: getattr(part, key) for key, part in source.items()}
        own: dict[str, Any] = {
            key: getattr(spec, key) for key in ("n_epochs", "restart", "reset", "objective")
        }
        model = {**self.model.model_dump(), **spec.model.model_dump(exclude_unset=True)}
        return Stage(name=name, model=Component(**model), **own, **inherited)

    def all_stages(self) -> list[Stage]:
        """The stages, filled in, in the order in which they run."""
        return [self.stage(name) for name in self.stage_order]

    def to_dict(self) -> dict[str, Any]:
        """The manifest as written, as JSON values, keys in the order of DESIGN 5."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    def resolved(self) -> Manifest:
        """The same experiment with every default and every inherited key written out."""
        whole = self.model_dump(mode="json", by_alias=True, exclude={"stages"}, exclude_none=True)
        whole["stages"] = {stage.name: stage.to_dict() for stage in self.all_stages()}
        for key, default in LATER.items():
            if whole[key] == default:
                del whole[key]
        return Manifest.model_validate(whole)

    def fingerprint(self) -> str:
        """sha256 (hexadecimal) of the resolved manifest as JSON with sorted keys."""
        return hashlib.sha256(self.resolved()._written.encode()).hexdigest()

    def to_json(self) -> str:
        """The text that `save` writes."""
        return strict_json.pretty(self.to_dict())

    def save(self, path: str | Path) -> None:
        """Write the manifest to `path`, atomically; ``load(path)`` gives an equal one, and the same bytes again."""
        files.write_text(path, self.to_json())


def load(path: str | Path, *, task: Vocabulary | None = None) -> Manifest:
    """Read the manifest in the file `path`.

    Args:
        path: a JSON file.
        task: the component names that may be asked for; None: those of the manifest's task (`cplxnet.auto.tasks`).

    Raises:
        ManifestError: with every fault of it; ManifestNotFoundError (also a FileNotFoundError): no such file.
    """
    raw, faults = strict_json.parse(strict_json.read(path), source=path)
    return parse(raw, task=task, source=path, faults=faults)


def parse(
    raw: Any,
    *,
    task: Vocabulary | None = None,
    source: str | Path = "manifest",
    faults: list[Fault] | None = None,
) -> Manifest:
    """A manifest from JSON values.

    Args:
        raw: a dict as `json.load` gives it.
        task: as in `load`.
        source: what the error's first line names.
        faults: faults found before, to be reported with the others.

    Raises:
        ManifestError: with every fault of it.
    """
    faults = list(faults or [])
    manifest = None
    if not isinstance(raw, Mapping):
        raise ManifestError(
            source, [*faults, Fault("", "not an object", raw, 'an object with the key "schema"')]
        )
    if is_older(raw):
        raise ManifestError(
            source,
            [Fault("", "a manifest of the older complex_paper system", accepted=_TRANSLATED)],
        )
    try:
        manifest = Manifest.model_validate(raw)
    except ValidationError as error:
        faults += type_faults(error, Manifest)
    faults += check(raw, task or _vocabulary(raw.get("task")))
    if faults or manifest is None:
        raise ManifestError(source, faults)
    return manifest


def _vocabulary(task: object) -> Vocabulary:
    """The vocabulary of the task of this name; of the default one where the name is a fault itself."""
    from cplxnet.auto import tasks  # imported late: tasks needs this module's Vocabulary

    name = task if isinstance(task, str) and task in tasks.TASKS else "musicnet"
    return replace(tasks.vocabulary(name), task=name)


def is_older(raw: Any) -> bool:
    """Whether JSON values look like a manifest of the older complex_paper system: they have its spellings of keys."""
    if not isinstance(raw, Mapping) or "schema" in raw:
        return False
    return not {"stage-order", "__name__", "dataset_sources"}.isdisjoint(raw)
