"""Figures go to no window; a table of runs for all that draw."""

import matplotlib
import pandas as pd
import pytest
from scored_runs import DENSE, TUNED

from cplxnet.auto import experiments

matplotlib.use("Agg")


@pytest.fixture
def table() -> pd.DataFrame:
    """The rows of four runs, dense and fine-tuned, as `tables.collect` gives them."""
    rows = []
    for (c, seed), (compression, before, after) in TUNED.items():
        about = {
            "folder": "runs",
            "run": f"c{c}-r{seed}",
            "method": "VD",
            experiments.C: c,
            "setting": f"C = {c:g}",
            "scored_on": ("test.h5", 4096, 128),
            "seed": seed,
            "state": "done",
            "scorer": "test",
            "positive_share": 0.03,
            "n_par": 1000,
            "n_zero": 0,
        }
        score = {
            "average_precision": DENSE[seed],
            "average_precision_start": None,
            "compression": 1.0,
        }
        rows.append({**about, "stage": "dense", **score})
        score = {
            "average_precision": after,
            "average_precision_start": before,
            "compression": compression,
        }
        rows.append({**about, "stage": "fine-tune", **score})
    return pd.DataFrame(rows)
