"""The grids of the study: the numbers of extra/design.md, and the committed files byte for byte."""

import json
import re
from pathlib import Path

import pytest

from cplxnet.auto.manifest import grid
from cplxnet.auto.manifest.read import load
from cplxnet.auto.report.tables import every_run
from cplxnet.auto.runner import stages
from cplxnet.auto.runner.stages import planned
from cplxnet.musicnet.experiments import TEMPLATE

RUNS = Path(__file__).resolve().parents[2] / "runs"
VALUES_1 = [
    1e-5,
    2.5e-5,
    5e-5,
    7.5e-5,
    1e-4,
    2.5e-4,
    5e-4,
    7.5e-4,
    1e-3,
    2.5e-3,
    5e-3,
    7.5e-3,
    1e-2,
    2.5e-2,
    5e-2,
    7.5e-2,
    1.0,
]
VALUES_2 = [3.75e-3, 6.75e-3, 8.75e-3, 3.75e-2, 6.75e-2, 8.75e-2]
GRIDS = {
    "experiment-1": (grid.experiment_1, VALUES_1, 85),
    "experiment-2": (grid.experiment_2, VALUES_2, 30),
}


@pytest.mark.parametrize("name", GRIDS)
def test_values_and_replicates(name):
    make, values, count = GRIDS[name]
    manifests = make()
    assert len(manifests) == count == len({m.fingerprint() for m in manifests.values()})
    assert {m.stage_order for m in manifests.values()} == {grid.STAGES}
    table = grid.varied(manifests)
    assert list(table.columns) == ["seed", grid.C]
    rows = sorted(zip(table[grid.C], table["seed"], strict=True))
    assert rows == [(value, seed) for value in sorted(values) for seed in range(5)]


@pytest.mark.parametrize("name", GRIDS)
def test_committed_files_byte_for_byte(name):
    manifests = GRIDS[name][0]()
    assert {path.stem for path in (RUNS / name).glob("*.json")} == set(manifests)
    for stem, manifest in manifests.items():
        assert (RUNS / name / f"{stem}.json").read_bytes() == manifest.to_json().encode(), stem


def test_committed_files_are_valid_for_the_real_task():
    for name, (make, _, _) in GRIDS.items():
        assert grid.read(RUNS / name) == make()


def test_the_template_is_the_designs():
    manifest = grid.experiment_1()["c2.5e-03-r0"]
    raw = json.loads(manifest.to_json())
    assert raw["name"] == "experiment-1 C=2.5e-3 replicate 0" and raw["threshold"] == -0.5
    assert [stage.n_epochs for stage in manifest.all_stages()] == [50, 75, 50]
    assert [stage.early is not None for stage in manifest.all_stages()] == [True, False, True]
    assert raw["feeds"]["train"] == {
        "dataset": "train",
        "sampler": "one-per-recording",
        "n_batches": 1000,
    }
    assert raw["objective_terms"]["kl_div"] == {"name": "kl", "reduction": "sum", "coef": 1e-5}
    assert load(RUNS / "experiment-1" / "c2.5e-03-r0.json") == manifest


def test_the_grids_are_disjoint_and_names_tell_values_apart():
    one, two = grid.experiment_1(), grid.experiment_2()
    assert not set(one) & set(two)
    values = [m.stage("sparsify").objective["kl_div"] for m in {**one, **two}.values()]
    assert len(set(values)) == 17 + 6
    by_label = {
        name.rpartition("-r")[0]: value for name, value in zip([*one, *two], values, strict=True)
    }
    assert len(by_label) == 23 and all(float(text[1:]) == value for text, value in by_label.items())


def test_names_on_the_page():
    names = [m.name for m in grid.experiment_1().values()]
    assert (
        names[0] == "experiment-1 C=1e-5 replicate 0"
        and names[-1] == "experiment-1 C=1e0 replicate 4"
    )
    assert "c6.75e-03-r3" in grid.experiment_2()


def test_demo_grid_on_its_own_schedule():
    manifests = grid.demo((0.05, 0.5), n_batches=7, n_epochs=(3, 2, 1), lr_log_sigma2=1e-2)
    assert list(manifests) == ["c5e-02-r0", "c5e-01-r0"]
    manifest = manifests["c5e-01-r0"]
    assert manifest.name == "demo C=5e-1 replicate 0"
    assert [stage.n_epochs for stage in manifest.all_stages()] == [3, 2, 1]
    assert [stage.optimizer.lr_log_sigma2 for stage in manifest.all_stages()] == [None, 1e-2, None]
    assert [stage.lr_scheduler.kwargs for stage in manifest.all_stages()] == [{"final": 0.01}] * 3
    assert manifest.datasets["train"].file == "demo/musicnet_11khz_train.h5"
    assert [manifest.datasets[name].stride for name in ("train", "valid", "test")] == [
        1,
        4096,
        4096,
    ]
    assert manifest.feeds["train"].n_batches == 7
    assert manifest.stage("fine-tune").model.name == "complex.DeepConvNetMasked"


def test_reference_grid_varies_form_c_and_seed_and_trains_one_dense_network_a_seed():
    manifests = grid.reference((0.05, 0.5), forms=("VD", "ARD"), replicates=3)
    table = grid.varied(manifests)
    assert list(table.columns) == ["seed", grid.METHOD, grid.C]
    assert len(manifests) == 2 * 2 * 3 and not table.duplicated().any()
    assert manifests["ard-c5e-01-r2"].stage("sparsify").model.name == "complex.DeepConvNetARD"
    assert manifests["vd-c5e-02-r1"].name == "reference VD C=0.05 replicate 1"
    dense = [
        stages.key_of(m, "dense", previous=None, data={}, device="cpu") for m in manifests.values()
    ]
    assert len(set(dense)) == 3
    for manifest in manifests.values():
        assert all(s.n_epochs <= s.early.patience for s in manifest.all_stages() if s.early)
        assert manifest.stage("sparsify").early is None
        assert {d.file.split("/")[0] for d in manifest.datasets.values()} == {"reference"}


def test_the_committed_reference_grid_has_two_replicates_of_six_values():
    manifests = grid.read(RUNS / "reference")
    assert manifests == grid.reference()
    counts = grid.varied(manifests).groupby(grid.C)["seed"].nunique()
    assert (counts >= 2).all() and len(counts) >= 6


def test_the_other_committed_grids_are_presets():
    assert grid.read(RUNS / "structured") == grid.structured()
    assert grid.read(RUNS / "settled") == grid.settled()


def test_settled_has_every_contestant_on_the_dense_networks_of_its_family(tmp_path):
    manifests = grid.settled((0.01, 0.1), l0_values=(0.5,), sparsities=(0.98,), replicates=1)
    keys: dict[str, set[str]] = {}
    for name, manifest in manifests.items():
        (_, dense), (_, sparsify), _ = planned(manifest)
        keys.setdefault(dense.key, set()).add(re.sub(r"-[cs][-.e\d]+-r0", "", name))
        if name == "vd-c1e-01-r0":
            of_vd = sparsify.key
    assert sorted(map(len, keys.values())) == [1, 1, 1, 1, 7]
    _, (_, sparsify), _ = planned(manifests["random-c1e-01-r0"])
    assert sparsify.key == of_vd  # random masks have the sparsity of VD's own run

    grid.write(tmp_path, manifests)
    rows = {run.name: (run.method, run.columns["setting"]) for run in every_run([tmp_path])}
    assert rows["gradual-s0.98-r0"] == ("complex gradual", "sparsity = 0.98")
    assert rows["gradual-by-layer-s0.98-r0"] == ("complex gradual by layer", "sparsity = 0.98")
    assert rows["l0-c5e-01-r0"] == ("complex L0", "C = 0.5")
    assert rows["random-c1e-01-r0"] == ("complex random", "C = 0.1")
    assert rows["real-moduli-c1e-01-r0"][0].startswith("real VD features.cplx=False")
    assert rows["real-same-size-s0-r0"] == ("real one-shot width=1.257", "sparsity = 0")
    assert len({method for method, _ in rows.values()}) == 12


def test_making_a_grid_leaves_the_template_alone():
    before = json.dumps(TEMPLATE)
    grid.demo((0.5,), lr_log_sigma2=1.0)
    tiny = grid.tiny()
    assert json.dumps(TEMPLATE) == before
    assert (
        tiny.stage("sparsify").model.name == "complex.TwoLayerDenseVD"
        and tiny.stage("dense").n_epochs == 2
    )
