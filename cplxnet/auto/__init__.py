"""How an experiment runs: manifests, grids, stages of training, runs and their results."""

import os

# Large pages for the gradients and activations, which torch allocates anew in every step: a sixth off a step on Linux.
# Read by torch at its first allocation; whoever set it otherwise is left alone.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

from . import grid, plots, report
from .manifest import Manifest, load
from .many import run_many
from .report import status
from .runner import run
