"""Sum against mean: the spread over layers, and the study from its runs to its figures."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_notebooks import checkout_of, execute, images, texts

from cplxnet import auto
from cplxnet.auto import __main__ as command
from cplxnet.auto.manifest import grid
from legacy import averaged_kl, reductions


def test_spread_counts_every_layer_once_and_divides_by_their_number() -> None:
    rows = [("a", 0.2, 1000), ("b", 0.5, 10), ("c", 0.9, 10)]
    table = pd.DataFrame(
        {
            "run": "sum-x2.0",
            "pair": 2.0,
            "reduction": "sum",
            "C": 1.0,
            "layer": layer,
            "sparsity": sparsity,
            "n_par": n,
        }
        for layer, sparsity, n in rows
    )
    (row,) = reductions.spread(table).to_dict("records")
    assert row["std"] == pytest.approx(100 * np.std([0.2, 0.5, 0.9]))
    assert (row["low"], row["high"], row["ratio"]) == pytest.approx((20, 90, 8))


@pytest.mark.filterwarnings("ignore")
def test_study_is_brought_to_equal_compression_and_analysed(
    tmp_path: Path, tiny_corpus: Path, capsys: pytest.CaptureFixture
) -> None:
    root = checkout_of("legacy", tmp_path / "checkout")
    options = {
        "n_batches": 3,
        "n_epochs": (1, 2, 1),
        "lr_log_sigma2": 2.0,
        "batch_size": 16,
        "folder": tiny_corpus.name,
    }
    manifests = averaged_kl.study([1.0], [1e4], model="complex.TwoLayerDense", **options)
    windows = {f"datasets.{split}.window": 256 for split in ("train", "valid", "test")}
    study, equal = root / "legacy" / "study", root / "legacy" / "equal"
    grid.write(study, {name: grid.edit(manifest, windows) for name, manifest in manifests.items()})
    data = ["--data", str(tiny_corpus.parent)]
    for arguments in (["run", study], ["equalise", study, equal, "--at", "4"], ["run", equal]):
        assert command.main([*map(str, arguments), *data]) == 0, capsys.readouterr().err
    table = reductions.pairs(equal)
    assert list(table["reduction"]) == ["sum", "mean"] and list(table["pair"]) == [4, 4]
    assert (
        table["compression"].between(3.99, 4).all()
    )  # of 700 000 weights the next one is always near
    assert set(auto.report.status(equal)["state"]) == {"done"}

    analysed = execute("legacy/legacy_analysis.ipynb", tmp_path, root=root)
    assert images(analysed) == 2 and reductions.readings(table)[0] in texts(analysed)
    for name in ("layers", "scores"):
        assert (equal / f"{name}.png").stat().st_size > 10_000
        assert (equal / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert len(pd.read_csv(equal / f"{name}.csv")) == {"layers": 4, "scores": 2}[name]
