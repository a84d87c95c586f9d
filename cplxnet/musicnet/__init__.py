"""The task, transcribing music: recordings, windows and labels, features, networks, scores.

The names below are what `cplxnet.auto` looks up (see `cplxnet.auto.tasks.Task`).
"""

from .dataset import SAMPLERS, MusicNet, check_datasets, sizes
from .deployment import (
    EXPORTS,
    HEARD,
    export_arguments,
    export_network,
    load_network,
    transcribe_arguments,
    transcribe_recording,
)
from .experiments import GPU_STEP_MS, PRESETS
from .features import FEATURE_KINDS, features
from .labels import LOWEST_NOTE
from .networks import MODELS, build
from .scores import pooled_average_precision, published, score_dataset
from .transcription.windows import transcribe

open_dataset = MusicNet

# for reports: where scores by class are kept, what a class is called, the number of the first
CLASSES = {"key": "notes", "name": "note", "axis": "note, MIDI number", "first": LOWEST_NOTE}
