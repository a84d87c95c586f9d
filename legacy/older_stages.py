"""The stages of an old manifest: its defaults written out, its classes by their names here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import older_names as names
from .older_models import changed_model
from .older_rows import Row, Translation

_DEFAULTS = {  # of the older system; ours are the first stage's values
    "snapshot": None,
    "restart": False,
    "reset": False,
    "grad_clip": 0.5,
    "early": None,
    "lr_scheduler": {"cls": "<class 'musicnet.lr_scheduler.Trabelsi2017LRSchedule'>"},
    "optimizer": {"cls": "<class 'torch.optim.adam.Adam'>", "lr": 1e-3},
}
_ADAM = {
    "betas": [0.9, 0.999],
    "eps": 1e-8,
    "weight_decay": 0,
    "amsgrad": False,
}  # torch's own, left out here


class Stages:
    """Translates stages one after another; the scorers that earlier manifests left to early stopping are made here."""

    def __init__(self, into: Translation) -> None:
        self.into = into
        self.scorers: dict[str, Any] = {}

    def all(self, table: Row) -> dict[str, Any]:
        """The table `stages`."""
        return {name: self._stage(table.at(name), value) for name, value in table.left.items()}

    def _stage(self, path: str, value: Any) -> dict[str, Any]:
        row = Row(path, {**_DEFAULTS, **value} if isinstance(value, Mapping) else value, self.into)
        if row.take("snapshot") is not None:
            row.fault(
                "snapshot", "a start from a file cannot be translated", value["snapshot"], "null"
            )
        made = {
            "feed": row.need("feed"),
            "n_epochs": row.need("n_epochs"),
            "model": changed_model(Row(row.at("model"), row.take("model") or {}, self.into)),
            "restart": row.take("restart"),
            "reset": row.take("reset"),
            "grad_clip": row.take("grad_clip"),
            "objective": self._objective(row),
            "optimizer": _optimizer(row.part("optimizer")),
            "lr_scheduler": _schedule(row.part("lr_scheduler")),
            "early": self._early(row),
        }
        row.close()
        return made

    def _objective(self, row: Row) -> Any:
        written = row.need("objective")
        if isinstance(written, str):
            row.fault(
                "objective",
                "an expression cannot be translated",
                written,
                "an object of terms and weights",
            )
        return written

    def _early(self, row: Row) -> dict[str, Any] | None:
        value = row.take("early")
        if value is None:
            return None
        early = Row(row.at("early"), value, self.into)
        early.named(names.STOPPERS, default=next(iter(names.STOPPERS)))
        if names.class_path(early.take("raises", "StopIteration")) not in (
            "StopIteration",
            "builtins.StopIteration",
        ):
            early.fault(
                "raises", "cannot be translated", value["raises"], "<class 'StopIteration'>"
            )
        if "feed" in early.left:  # the earlier form: a scorer is made for the feed
            feed = early.take("feed")
            scorer = f"early-{feed}"
            self.scorers[scorer] = {"feed": feed, "curves": False}
        else:
            scorer = early.need("scorer")
        defaults = {"patience": 10, "cooldown": 1, "rtol": 1e-3, "atol": 1e-4}
        made = {
            "scorer": scorer,
            **{key: early.take(key, default) for key, default in defaults.items()},
        }
        early.close()
        return made


def _optimizer(row: Row) -> dict[str, Any]:
    name = row.named(names.OPTIMIZERS)
    made = {"name": name, "lr": row.take("lr", 1e-3)}
    for key, usual in _ADAM.items():
        value = row.take(key, usual)
        if value != usual:
            made[key] = value
    row.close()
    return made


def _schedule(row: Row) -> dict[str, Any]:
    name = row.named(names.SCHEDULES)
    row.close()
    return {"name": name}
