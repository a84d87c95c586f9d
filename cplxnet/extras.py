"""Optional dependencies: what heavy parts need beside the core, under names that pip knows.

| extra           | needed for                                                                   |
|-----------------|------------------------------------------------------------------------------|
| `grid`          | several runs at a time, on one machine or on a cluster                       |
| `report`        | reports: tables on the command line, and figures                             |
| `onnx`          | networks as ONNX files, and transcribing from them                           |
| `transcription` | MIDI files of what was transcribed                                           |
| `notebooks`     | the notebooks, run cell by cell or from the command line                     |
| `corpora`       | the builders in `extra/corpora`                                              |

`pip install 'cplxnet[grid,onnx]'` installs two of them; `pyproject.toml` says which packages each
one holds.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class MissingExtraError(ImportError):
    """A package is missing that only part of the system needs; the text says how to install it."""


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Say which extra to install where an import in the block finds a package missing.

        with extra("grid"):
            from distributed import Client

    Args:
        name: an extra of `pyproject.toml`.

    Raises:
        MissingExtraError: the package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "cplxnet"):  # a fault of ours, which no installation mends
            raise

        raise MissingExtraError(
            f"expected the package {package}, got none installed; try pip install 'cplxnet[{name}]'"
        ) from error
