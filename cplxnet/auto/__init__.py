"""How an experiment runs: manifests, grids, stages of training, runs and their results."""

from . import report
from . import report as reports  # its older name, which notebooks use
from .manifest import experiments, grid, vocabulary
from .manifest.read import load
from .manifest.schema import Manifest
from .models import heard, load_model
from .report import page, plots, status
from .runner.run import run
from .sweep.run_many import run_many
from .sweep.run_one import Outcome


def _vocabulary_of(task: object) -> vocabulary.Vocabulary:
    from . import tasks  # only when a manifest is read: it loads the task's package

    return tasks.vocabulary_of(task)


vocabulary.provide(_vocabulary_of)
