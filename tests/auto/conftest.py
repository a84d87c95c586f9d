"""A finished run, and a count of the epochs trained."""

import pytest
from small import Counting, quick, small

from cplxnet.auto import session


@pytest.fixture(scope="session")
def done(tiny_corpus, tmp_path_factory):
    """The folder of a finished run of `small()`; copy it before changing anything."""
    folder = tmp_path_factory.mktemp("done") / "one"
    quick(small(), folder, tiny_corpus)
    return folder


@pytest.fixture
def epochs(monkeypatch):
    """Counts the epochs trained."""
    counting = Counting(session.train_epoch)
    monkeypatch.setattr(session, "train_epoch", counting)
    return counting
