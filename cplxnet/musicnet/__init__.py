"""The task, transcribing music: recordings, windows and labels, features, networks, scores.

The names below are what `cplxnet.auto` looks up (see `cplxnet.auto.tasks.Task`).
"""

from .baselines import published
from .commands import COMMANDS
from .dataset import MusicNet
from .features import FEATURE_KINDS, features
from .labels import LOWEST_NOTE
from .networks import MODELS, build
from .samplers import SAMPLERS
from .scores import pooled_average_precision, score, score_dataset
from .transcription.windows import transcribe

open_dataset = MusicNet

__all__ = [
    "COMMANDS",
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
