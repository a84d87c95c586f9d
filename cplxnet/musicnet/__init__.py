"""The task, transcribing music: recordings, windows and labels, features, networks, scores.

The names below are what `cplxnet.auto` looks up (see `cplxnet.auto.tasks.Task`).
"""

from .baselines import published
from .commands import COMMANDS, export_arguments
from .dataset import MusicNet, check_datasets, sizes
from .deployment import EXPORTS, HEARD, export_network, load_network
from .experiments import GPU_STEP_MS, PRESETS
from .features import FEATURE_KINDS, features
from .labels import LOWEST_NOTE
from .networks import MODELS, build
from .samplers import SAMPLERS
from .scores import pooled_average_precision, score, score_dataset
from .transcription.example import example
from .transcription.windows import transcribe

open_dataset = MusicNet

# for reports: where scores by class are kept, what a class is called, the number of the first
CLASSES = {"key": "notes", "name": "note", "axis": "note, MIDI number", "first": LOWEST_NOTE}

__all__ = [
    "CLASSES",
    "COMMANDS",
    "EXPORTS",
    "FEATURE_KINDS",
    "GPU_STEP_MS",
    "HEARD",
    "LOWEST_NOTE",
    "MODELS",
    "PRESETS",
    "SAMPLERS",
    "MusicNet",
    "build",
    "check_datasets",
    "example",
    "export_network",
    "features",
    "load_network",
    "open_dataset",
    "pooled_average_precision",
    "published",
    "score",
    "score_dataset",
    "sizes",
    "transcribe",
]
