"""A count of the epochs trained, and processes that end with their test."""

import pytest
from processes import Started
from small import Counting

from cplxnet.auto.runner import trainer


@pytest.fixture
def epochs(monkeypatch):
    """Counts the epochs trained."""
    counting = Counting(trainer.train_epoch)
    monkeypatch.setattr(trainer, "train_epoch", counting)
    return counting


@pytest.fixture
def started(tmp_path):
    """Starts processes; the ends of their logs are shown where the test fails."""
    started = Started(tmp_path / "logs")
    yield started
    started.end()
    print(started.logs())
