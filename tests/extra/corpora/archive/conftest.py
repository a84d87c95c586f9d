"""A tiny MusicNet as folder for all tests of the archive."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four recordings of two seconds: 1727 and 1759 train, 2131 valid, 2303 test. Not to be
    changed.
    """
    return tiny.folder(tmp_path_factory.mktemp("musicnet") / "unpacked")


@pytest.fixture(scope="session")
def metadata_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.metadata(tmp_path_factory.mktemp("metadata") / "musicnet_metadata.csv")


@pytest.fixture(scope="session")
def expected(unpacked, metadata_csv, tmp_path_factory) -> dict[str, bytes]:
    """Name -> content of the files that the tiny MusicNet makes, built without a disturbance."""
    from extra.corpora import archive

    built = archive.build(
        unpacked, tmp_path_factory.mktemp("expected"), metadata_csv=metadata_csv, n_workers=0
    )
    return {name: (built.folder / name).read_bytes() for name in built.files}


@pytest.fixture(scope="session")
def forked(unpacked, metadata_csv) -> Iterator[Callable[..., dict[str, Any]]]:
    """`forked(data, **order)` builds the tiny MusicNet in `data` in a process of its own: see
    forked.py.
    """
    if not hasattr(os, "fork"):
        pytest.skip("needs os.fork")
    command = [
        sys.executable,
        str(Path(__file__).parent / "forked.py"),
        str(unpacked),
        str(metadata_csv),
    ]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    found = os.environ | {"PYTHONPATH": str(Path(__file__).parents[4])}  # where `extra` is
    with subprocess.Popen(command, text=True, env=found, **pipes) as process:
        assert process.stdin is not None and process.stdout is not None
        stdin, stdout = process.stdin, process.stdout
        assert stdout.readline() == "ready\n"

        def build(data: Path, **order: float) -> dict[str, Any]:
            stdin.write(json.dumps({"data": str(data), **order}) + "\n")
            stdin.flush()
            return json.loads(stdout.readline())

        yield build
        process.kill()
