"""Complex-valued networks for music transcription, and their compression by variational dropout."""

import os

# Large pages for the gradients and activations, which torch allocates anew in every step (Linux).
# Torch reads this at its first allocation; whoever has set it otherwise is left alone.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

__version__ = "0.1.0"

DEFAULT_TASK = "musicnet"  # of manifests that name none; here, for `cplxnet.auto` names no task
