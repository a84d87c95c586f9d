"""A count of the epochs trained, and processes that end with their test."""

import pytest
from processes import Started
from small import Epochs


@pytest.fixture
def epochs(monkeypatch):
    """Counts the epochs trained."""
    return Epochs().watch(monkeypatch)


@pytest.fixture
def started(tmp_path):
    """Starts processes; the ends of their logs are shown where the test fails."""
    started = Started(tmp_path / "logs")
    yield started
    started.end()
    print(started.logs())
