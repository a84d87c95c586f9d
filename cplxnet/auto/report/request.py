"""What a report is asked for, and what it gives: the frame that all kinds share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from cplxnet.auto.runner.folder import RunFolder

from . import tables


@dataclass(frozen=True)
class Request:
    """Which runs a report is of, and how they are to be read.

    Args:
        folders: of manifests and runs.
        out: the folder for the files.
        scorer: whose scores, as manifests name it.
        data: the folder of the data files.
        device: what scores and trains (threshold).
        runs: the names of those to be masked again (threshold); None: all.
        at: thresholds on log alpha (threshold); None: -6, -5, ..., 6.
        tune: fine-tune again at each threshold (threshold).
    """

    folders: Sequence[Path]
    out: Path
    scorer: str = "test"
    data: Path = Path("data")
    device: str = "cpu"
    runs: Sequence[str] | None = None
    at: Sequence[float] | None = None
    tune: bool = False

    def table(self) -> pd.DataFrame:
        """The scores of all runs (`tables.gather`)."""
        return tables.gather(*self.folders)

    def check(self) -> None:
        """Raise ValueError, with what to try, if a folder holds a run or no manifests."""
        for folder in self.folders:
            if folder.is_dir() and not list(folder.glob("*.json")):
                raise ValueError(
                    f"{folder}: expected a folder of manifests, "
                    "got no manifests in this folder (*.json)"
                )
            if folder.is_dir() and RunFolder(folder).config:
                raise ValueError(
                    f"{folder}: expected a folder of manifests, got the folder of one run; "
                    f"try {folder.parent}"
                )


@dataclass(frozen=True)
class Report:
    """A report: its figure (None if there is nothing to draw), its data, and what they say.

    paths: the files written. more: further tables, by what is added to their file's name.
    """

    figure: Figure | None
    rows: pd.DataFrame
    sentences: list[str] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    more: Mapping[str, pd.DataFrame] = field(default_factory=dict)
