"""How an experiment runs: manifests, grids, stages of training, runs and their results."""

from . import grid, plots, report
from .manifest import Manifest, load
from .many import run_many
from .one import Outcome
from .report import status
from .runner import run
from .trained import heard, load_model
