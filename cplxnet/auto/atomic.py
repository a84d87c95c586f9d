"""Files that are whole or not there: written under a temporary name in the same folder, synced, then renamed."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch


def write(path: str | Path, fill: Callable[[BinaryIO], None]) -> None:
    """Call `fill(file)` on a temporary file beside `path`, then rename it to `path`; on an error nothing is left."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # mkstemp makes it private
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8."""

    def fill(file: BinaryIO) -> None:
        file.write(text.encode())

    write(path, fill)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON; NaN and infinity are refused (ValueError), since JSON has none."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_tensors(path: str | Path, value: dict[str, Any]) -> None:
    """Write tensors and plain values so that `torch.load(path, weights_only=True)` reads them back."""
    write(path, lambda file: torch.save(value, file))


def read_tensors(path: str | Path) -> dict[str, Any]:
    """Read what `write_tensors` wrote, on the CPU, executing nothing.

    Raises ValueError, naming the file, where it is truncated, altered or holds anything but tensors and plain values.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch raises half a dozen types here; whichever, the file is unusable
        raise ValueError(f"{path}: expected a snapshot of tensors and plain values, got {error}") from error
