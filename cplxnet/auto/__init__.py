"""How an experiment runs: manifests, grids, stages of training, runs and their results."""

from . import report
from . import report as reports  # its older name, which notebooks use
from .manifest import Manifest, experiments, grid, load
from .models import heard, load_model
from .report import page, plots, status
from .runner.run import run
from .sweep.run_many import run_many
from .sweep.run_one import Outcome
