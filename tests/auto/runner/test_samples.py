"""The manifest's key `samples`: how recordings are held in memory."""

import pytest
from small import quick, small


def test_int16_trains_to_nearly_the_same_scores(tiny_corpus, tmp_path):
    scores = {
        samples: quick(small({"samples": samples}), tmp_path / samples, tiny_corpus)
        for samples in ("float32", "int16")
    }
    end = [
        s["stages"]["dense"]["scores"]["test"]["end"]["average_precision"] for s in scores.values()
    ]
    keys = {s["stages"]["dense"]["key"] for s in scores.values()}
    assert len(keys) == 2 and end[0] == pytest.approx(end[1], abs=0.02)
