"""Makes `tiny` importable, and a tiny MusicNet as folder for all tests of the archive."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import tiny


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four recordings of two seconds: 1727 and 1759 train, 2131 valid, 2303 test. Not to be changed."""
    return tiny.folder(tmp_path_factory.mktemp("musicnet") / "unpacked")


@pytest.fixture(scope="session")
def metadata_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.metadata(tmp_path_factory.mktemp("metadata") / "musicnet_metadata.csv")
