"""What the files and commands of the builders of data have in common.

The builders are `python -m extra.corpora.demo` and `python -m extra.corpora.archive`.
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np

from cplxnet.musicnet.recordings import Recording
from cplxnet.musicnet.resample import SOURCE_HZ, TARGET_HZ, resample

FULL = "musicnet.h5"  # every recording at 44.1 kHz
SPLITS = ("train", "valid", "test")


def file_11khz(split: str) -> str:
    """The name of a split's file at 11 kHz."""
    return f"musicnet_11khz_{split}.h5"


def parser(name: str, description: str | None, examples: str) -> argparse.ArgumentParser:
    """A parser of the options that both commands have; `name`: demo or archive."""
    options = argparse.ArgumentParser(
        prog=f"python -m extra.corpora.{name}",
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument(
        "--data",
        type=Path,
        default=Path("data"),
        metavar="FOLDER",
        help="where the files go (default: data)",
    )
    options.add_argument("--force", action="store_true", help="build again what is built")
    return options


def rescale(times: np.ndarray) -> np.ndarray:
    """Sample numbers at 11 kHz of the sample numbers `times` at 44.1 kHz.

    floor(times * 11000/44100)    in integers, so without rounding
    """
    return np.asarray(times, np.int64) * TARGET_HZ // SOURCE_HZ


def downsample(recording: Recording) -> Recording:
    """A recording at 44.1 kHz as one at 11 kHz: samples resampled, times of labels rescaled."""
    labels = recording.labels.copy()
    for column in ("start_time", "end_time"):
        labels[column] = rescale(labels[column])
    return dataclasses.replace(recording, data=resample(recording.data), labels=labels)
