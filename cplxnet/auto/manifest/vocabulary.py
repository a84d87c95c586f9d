"""The names that a manifest may use: the components of its task, and what it defines itself.

A `Vocabulary` is put together above this room, where the task, the losses and the optimisers are
(`auto/tasks.py`). It is handed down to pydantic as the context of validation.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pydantic import BaseModel

    from .schema import Features
    from .schema import ModelChange as Model

KL = "kl"  # the loss that sums the KL divergence of variational layers; every task has it

# what a name refers to -> the table of the manifest that defines it
TABLES = {
    "dataset": "datasets",
    "feed": "feeds",
    "scorer": "scorers",
    "objective term": "objective_terms",
    "stage": "stages",
}


@dataclass(frozen=True)
class Vocabulary:
    """What the components of a task are called, and which keywords they take."""

    components: Mapping[str, Collection[str]]  # what a name refers to ("sampler") -> the names
    variational_models: tuple[str, ...]  # those with a KL divergence
    channel_models: tuple[str, ...]  # those of them with a KL of channels
    # name of a component -> a model of the keywords it takes (`keywords`)
    options: Mapping[str, type[BaseModel]]
    # optimiser or schedule -> builds one from its keywords, and raises where that fails; an
    # optimiser's also takes `lr` and `lr_log_sigma2`, a schedule's `n_epochs`
    trials: Mapping[str, Callable[..., object]]
    # builds a stage's network without memory for it, and raises where that fails: model, features
    # and window -> the shape of each weight that stages hand on
    weights: Callable[[Model, Features, int], Mapping[str, tuple[int, ...]]]
    # the grids that the task brings: name -> a function that returns the arguments of `grid.expand`
    presets: Mapping[str, Callable[..., dict[str, Any]]]

    def is_masked(self, model: object) -> bool:
        """Whether the network of this name has masks."""
        return str(model).endswith("Masked")

    def names(self, raw: Mapping[Any, Any]) -> dict[str, Collection[str]]:
        """What a name refers to -> the names known to the manifest `raw` (as written).

        A table that is missing or no object is left out: that is one fault already, and names that
        refer to it are no further ones.
        """
        defined = {
            what: tuple(name for name in raw[key] if isinstance(name, str))
            for what, key in TABLES.items()
            if isinstance(raw.get(key), Mapping)
        }
        return {**self.components, **defined}


@functools.cache
def keywords(function: Callable[..., Any], *, given: tuple[str, ...] = ()) -> type[BaseModel]:
    """The keyword arguments of `function` as a pydantic model: their names, types and defaults.

    Args:
        function: builds the component. An argument without annotation may be anything.
        given: the arguments that are not the manifest's to set.
    """
    from pydantic import ConfigDict, Field, create_model  # here: `cplxnet.auto` imports this module

    parameters = inspect.signature(function, eval_str=True).parameters.values()
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    fields: dict[str, Any] = {}
    for parameter in parameters:
        is_many = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        if is_many or parameter.name in given:
            continue
        annotation = Any if parameter.annotation is parameter.empty else parameter.annotation
        default = ... if parameter.default is parameter.empty else parameter.default
        # under another name with an alias: BaseModel has attributes of its own
        fields[f"option_{parameter.name}"] = (annotation, Field(default, alias=parameter.name))

    extra: Literal["allow", "forbid"] = "allow" if takes_any else "forbid"
    config = ConfigDict(strict=True, extra=extra, arbitrary_types_allowed=True)
    return create_model("Keywords", __config__=config, **fields)


# The value of a manifest's key "task", whatever it is -> the vocabulary to read the manifest with.
# `cplxnet.auto` sets it, from above this room.
of_task: Callable[[Any], Vocabulary]
