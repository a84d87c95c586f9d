"""The task, transcribing music: recordings, windows and labels, features, networks, scores.

The names below are what `cplxnet.auto` looks up (see `cplxnet.auto.tasks.Task`).
"""

from .baselines import published
from .dataset import MusicNet, check_datasets
from .deployment import EXPORTS, HEARD, export_network, load_network
from .experiments import PRESETS
from .features import FEATURE_KINDS, features
from .labels import LOWEST_NOTE
from .networks import MODELS, build
from .samplers import SAMPLERS
from .scores import pooled_average_precision, score, score_dataset
from .transcription.windows import transcribe

NAME = "musicnet"  # of the task, in manifests
open_dataset = MusicNet

__all__ = [
    "EXPORTS",
    "FEATURE_KINDS",
    "HEARD",
    "LOWEST_NOTE",
    "MODELS",
    "NAME",
    "PRESETS",
    "SAMPLERS",
    "MusicNet",
    "build",
    "check_datasets",
    "export_network",
    "features",
    "load_network",
    "open_dataset",
    "pooled_average_precision",
    "published",
    "score",
    "score_dataset",
    "transcribe",
]
