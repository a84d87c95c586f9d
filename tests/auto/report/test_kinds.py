"""What reports of all kinds hold to."""

from pathlib import Path

import pytest
from scored_runs import fill, stage
from small import small

from cplxnet.auto import report
from cplxnet.auto.manifest import grid


@pytest.mark.parametrize("change", [("file", "other.h5"), ("stride", 64)])
def test_scores_of_other_windows_share_no_figure(tmp_path: Path, change: tuple) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder, changes in zip(
        folders, ({}, {f"datasets.test.{change[0]}": change[1]}), strict=True
    ):
        manifest = small(changes)
        grid.write(folder, {"run": manifest})
        stages = {"dense": stage(0.4), "fine-tune": stage(0.3, start=0.2, n_zero=50)}
        fill(folder, "run", manifest, stages)
    for kind in ("trade-off", "c-profile", "curves", "compare"):
        made = report.make(kind, folders, out=tmp_path, strict=False)
        assert made.figure is None and "which do not compare; try one" in made.sentences[0]
        assert str(change[1]) in made.sentences[0]
    # the course of training does compare
    assert report.make("stopping", folders, out=tmp_path).figure is not None
