"""The task, transcribing music: recordings, windows and labels, features, networks, scores.

The names below are what `cplxnet.auto` looks up (see `cplxnet.auto.tasks.Task`).
"""

from .dataset import MusicNet
from .features import FEATURE_KINDS, features
from .networks import MODELS, build
from .notes import LOWEST_NOTE
from .published import published
from .samplers import SAMPLERS
from .scores import pooled_average_precision, score, score_dataset
from .transcribe import transcribe

open_dataset = MusicNet

__all__ = [
    "FEATURE_KINDS",
    "LOWEST_NOTE",
    "MODELS",
    "SAMPLERS",
    "MusicNet",
    "build",
    "features",
    "open_dataset",
    "pooled_average_precision",
    "published",
    "score",
    "score_dataset",
    "transcribe",
]
