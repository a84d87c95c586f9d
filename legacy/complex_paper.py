"""The class paths that manifests of the older complex_paper system name, and what they are called
here.

A path is matched as text against the tables below; nothing is ever imported. It is written
`<class 'a.b.C'>` or `a.b.C`, and the root `cplxpaper` may be missing: earlier manifests begin at
`musicnet` or `auto`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

_PATH = re.compile(r"(?:<class\s+'([\w.]+)'>|([\w.]+))")
_MODEL = re.compile(
    r"musicnet\.(?:models\.)?(complex|real|trabelsi2017)(?:\.(?:base|extensions))?"
    r"\.(Cplx)?(DeepConvNet|ShallowConvNet|TwoLayerDense)(VD|ARD|Masked)?"
)

DATASETS = {"musicnet.dataset.MusicNetRAM": "h5", "musicnet.dataset.MusicNetHDF5": "h5"}
FEATURES = {
    "auto.feeds.FeedFourierFeatures": "fft",
    "auto.feeds.FeedRawFeatures": "raw",
    "musicnet.dataset.MusicNetWaveformCollation": "by kind",
}
FEEDS = {
    "musicnet.dataset.MusicNetDataLoader": "one-per-recording",
    "torch.utils.data.dataloader.DataLoader": "in-order",
    "torch.utils.data.DataLoader": "in-order",
}
SCORERS = {"musicnet.performance.MusicNetBasePerformance": "scores"}
TERMS = {
    "torch.nn.modules.loss.BCEWithLogitsLoss": "bce_with_logits",
    "torch.nn.modules.loss.CrossEntropyLoss": "cross_entropy",
    "torch.nn.modules.loss.MSELoss": "mse",
    "auto.objective.ARDPenaltyObjective": "kl",
}
OPTIMIZERS = {"torch.optim.adam.Adam": "adam", "torch.optim.Adam": "adam"}
SCHEDULES = {
    "musicnet.lr_scheduler.Trabelsi2017LRSchedule": "trabelsi2017",
    "musicnet.trabelsi2017.base.Trabelsi2017LRSchedule": "trabelsi2017",
}
STOPPERS = {"musicnet.performance.PooledAveragePrecisionEarlyStopper": "pooled average precision"}
# What an error shows as accepted.
MODELS = (
    "cplxpaper.musicnet.models.{complex,real}.{DeepConvNet,ShallowConvNet,TwoLayerDense}"
    "{,VD,ARD,Masked}"
)


class Model(NamedTuple):
    """A network's name here, and what there is to say about it."""

    name: str
    note: str | None = None

    @property
    def is_complex(self) -> bool:
        return self.name.startswith("complex.")


def class_path(text: object) -> str | None:
    """`a.b.C` of the class string `text`, without the root `cplxpaper`; None for any other text."""
    match = _PATH.fullmatch(text.strip()) if isinstance(text, str) else None
    return None if match is None else (match[1] or match[2]).removeprefix("cplxpaper.")


def component(text: object, known: Mapping[str, str]) -> str | None:
    """The name here of the class string `text`, one of `known`; None if it is none of them."""
    return known.get(class_path(text) or "")


def model(text: object) -> Model | None:
    """The network of a class string such as `<class
    'cplxpaper.musicnet.models.complex.DeepConvNetVD'>`.
    """
    match = _MODEL.fullmatch(class_path(text) or "")
    if match is None or (match[2] and match[1] != "complex"):
        return None

    field, prefix, architecture, kind = match.groups()
    field = "complex" if field == "complex" else "real"
    note = None
    if field == "complex" and architecture == "DeepConvNet" and prefix:
        note = "its first versions had no batch norm; the network here has"
    if field == "complex" and architecture == "ShallowConvNet":
        note = (
            "had no ReLU after its first linear layer, two layers being named alike; "
            "the network here has"
        )
    return Model(f"{field}.{architecture}{kind or ''}", note)
