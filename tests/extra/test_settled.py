"""The page of contestants: sizes counted by hand, and a page that its runs make."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cplxnet.auto.manifest.read import Manifest
from extra import settled

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return settled.collected()


def _manifest(run: str) -> Manifest:
    return Manifest.model_validate_json((ROOT / settled.RUNS / f"{run}.json").read_bytes())


def _positions(layers: list[tuple[int, int, int]], length: int) -> list[int]:
    """Of each convolution without padding, of (kernel, stride, pooling after it)."""
    counts = []
    for kernel, stride, pooling in layers:
        counts.append((length - kernel) // stride + 1)
        length = counts[-1] // pooling
    return counts


def test_dense_multiply_adds_are_those_of_the_published_network() -> None:
    applied = settled._applied(_manifest("vd-c2e-02-r0"))
    strides = [(6, 2, 2), (3, 2, 2), (3, 1, 2), (3, 1, 2), (3, 1, 1), (3, 1, 2)]
    positions = _positions(strides, 4096)
    assert [each for _, each in applied.values()] == [2 * n for n in positions] + [2, 2]

    channels = [1, 16, 32, 64, 64, 128, 128]
    sums = [a * b * k for a, b, (k, _, _) in zip(channels, channels[1:], strides, strict=False)]
    products = [n * count for n, count in zip(positions, sums, strict=True)]
    products += [3712 * 2048, 2048 * 84]
    assert sum(n * each for n, each in applied.values()) == 4 * sum(products)


def test_real_networks_match_the_complex_one_in_size_and_in_cost() -> None:
    complex_one = settled._applied(_manifest("vd-c2e-02-r0"))
    same_cost = settled._applied(_manifest("real-same-cost-c2e-02-r0"))
    same_size = settled._applied(_manifest("real-same-size-c2e-02-r0"))
    strides = [(7, 3, 2), (3, 2, 2), (3, 1, 2), (3, 1, 2), (3, 1, 1), (3, 1, 2)]
    assert [each for _, each in same_cost.values()] == [*_positions(strides, 4096), 1, 1]

    def cost(applied: dict[str, tuple[int, int]]) -> int:
        return sum(n * each for n, each in applied.values())

    def size(applied: dict[str, tuple[int, int]]) -> int:
        return sum(n for n, _ in applied.values())

    assert cost(same_cost) == pytest.approx(cost(complex_one), rel=0.01)
    assert size(same_size) == pytest.approx(size(complex_one), rel=0.01)


def test_what_is_masked_costs_nothing(runs) -> None:
    """At VD's sparsity of each layer random masks keep VD's numbers and multiply-adds."""
    by_run = runs.set_index("run")
    for c in ("1e-01", "4e-01"):
        for seed in (0, 1):
            pair = by_run.loc[[f"random-c{c}-r{seed}", f"vd-c{c}-r{seed}"]]
            assert pair["kept"].nunique() == 1 and pair["work"].nunique() == 1

    # a complex weight is two numbers, and four multiply-adds at each position
    manifest = _manifest("vd-c1e-01-r0")
    applied = settled._applied(manifest)
    scores = json.loads((ROOT / settled.RUNS / "vd-c1e-01-r0/scores.json").read_bytes())
    layers = scores["stages"]["fine-tune"]["layers"]
    kept = {name: (n - layers[name]["n_zero"]) // 2 for name, (n, _) in applied.items()}
    positions = dict(zip(applied, [2046, 511, 253, 124, 60, 58, 1, 1], strict=True))
    by_hand = sum(4 * positions[name] * kept[name] for name in kept)
    assert by_run.loc["vd-c1e-01-r0", "work"] == by_hand


def test_scores_at_equal_size_lie_between_those_of_the_neighbours(runs) -> None:
    ranked = settled.ranks(runs, "kept").set_index(["times", "method"])
    scores = []
    for seed in (0, 1):
        ends = runs.set_index("run").loc[[f"vd-c2e-01-r{seed}", f"vd-c1e-01-r{seed}"]]
        scores.append(np.interp(np.log(80_000), np.log(ends["kept"]), ends["after"]))
    assert ranked.loc[(80_000, "VD"), "score"] == pytest.approx(np.mean(scores), abs=1e-12)


def test_every_contestant_has_a_name(runs) -> None:
    assert runs["method"].notna().all()
    drawn = {method for methods in settled.PANELS.values() for method in methods}
    assert drawn <= set(settled.NAMES.values())


def test_the_committed_page_is_what_its_runs_say(runs, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    assert settled.page(runs) in settled.PAGE.read_text()
