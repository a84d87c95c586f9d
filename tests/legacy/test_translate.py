"""Manifests of the older complex_paper system: translated key by key, and what has no counterpart
named all at once.
"""

import json
from pathlib import Path

import pytest

from cplxnet.auto import __main__ as command
from cplxnet.auto import load
from cplxnet.auto.manifest import grid
from cplxnet.auto.manifest.read import ManifestError
from legacy import translate

ROOT = "cplxpaper.musicnet"
ADAM = {"cls": "<class 'torch.optim.adam.Adam'>", "lr": 0.001, "betas": [0.9, 0.999], "eps": 1e-08}
EARLY = {
    "cls": f"<class '{ROOT}.performance.PooledAveragePrecisionEarlyStopper'>",
    "scorer": "validation",
    "patience": 20,
    "cooldown": 0,
    "rtol": 0,
    "atol": 0.02,
    "raises": "<class 'StopIteration'>",
}


def cls(path: str, **rest: object) -> dict:
    return {"cls": f"<class '{path}'>", **rest}


def split(name: str, stride: int) -> dict:
    return cls(
        f"{ROOT}.dataset.MusicNetRAM", filename=f"/data/{name}.h5", window=4096, stride=stride
    )


def old_stage(kind: str, n_epochs: int, **rest: object) -> dict:
    schedule = cls(f"{ROOT}.lr_scheduler.Trabelsi2017LRSchedule")
    model = cls(f"{ROOT}.models.complex.DeepConvNet{kind}") if kind else {}
    common = {
        "snapshot": None,
        "feed": "train",
        "reset": False,
        "n_epochs": n_epochs,
        "grad_clip": 0.05,
    }
    return {**common, "model": model, "lr_scheduler": schedule, "optimizer": ADAM, **rest}


def old() -> dict:
    """Experiment-1's C = 2.5e-3 as the older system writes it, in its spellings."""
    loader = "torch.utils.data.dataloader.DataLoader"
    whole: dict = {
        "__name__": "an own example",
        "device": "cuda:3",
        "threshold": -0.5,
        "datasets": {
            "train": split("musicnet_11khz_train", 1),
            "valid": split("musicnet_11khz_valid", 128),
            "test": split("musicnet_11khz_test", 128),
        },
        "features": cls(
            "cplxpaper.auto.feeds.FeedFourierFeatures", signal_ndim=1, cplx=True, shift=True
        ),
        "feeds": {
            "train": cls(
                f"{ROOT}.dataset.MusicNetDataLoader",
                dataset="train",
                pin_memory=False,
                n_batches=1000,
            ),
            "valid": cls(
                loader,
                dataset="valid",
                batch_size=768,
                shuffle=False,
                pin_memory=True,
                n_batches=-1,
            ),
            "test": cls(loader, dataset="test", batch_size=256, shuffle=False, n_batches=-1),
        },
        "scorers": {
            "validation": cls(
                f"{ROOT}.performance.MusicNetBasePerformance", feed="valid", threshold=-0.5
            ),
            "test": cls(f"{ROOT}.performance.MusicNetBasePerformance", feed="test", curves=True),
        },
        "objective_terms": {
            "loss": cls(
                "torch.nn.modules.loss.BCEWithLogitsLoss", reduction="mean", pos_weight=None
            ),
            "kl_div": cls(
                "cplxpaper.auto.objective.ARDPenaltyObjective", reduction="sum", coef=1e-5
            ),
        },
        "model": cls(
            f"{ROOT}.models.complex.DeepConvNet",
            n_seq=4096,
            n_channels=1,
            n_outputs=84,
            legacy=False,
        ),
        "stages": {
            "dense": old_stage("", 50, restart=True, objective={"loss": 1.0}, early=EARLY),
            "sparsify": old_stage("VD", 75, objective={"loss": 1.0, "kl_div": 2.5e-3}, early=None),
            "fine-tune": old_stage(
                "Masked", 50, restart=True, objective={"loss": 1.0}, early=EARLY
            ),
        },
        "stage-order": ["dense", "sparsify", "fine-tune"],
    }
    return json.loads(json.dumps(whole))  # nothing shared between stages


def write(folder: Path, raw: dict, name: str = "musicnet[003]-101.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(raw))
    return path


def test_the_same_experiment_as_ours(tmp_path: Path) -> None:
    """An experiment that both systems have is ours to the last resolved value once translated."""
    made, notes = translate.translate_file(write(tmp_path, old()), tmp_path / "new.json")
    ours = grid.experiment_1()["c2.5e-03-r3"]
    assert made.fingerprint() == grid.edit(ours, {"name": "an own example"}).fingerprint()
    assert load(tmp_path / "new.json") == made and made.seed == 3
    assert any("musicnet_11khz_train.h5 in the data folder" in note for note in notes)
    assert any(note.startswith("device:") for note in notes) and len(notes) == 4


def test_defaults_are_those_of_the_older_system(tmp_path: Path) -> None:
    raw = old()
    for key in ("grad_clip", "lr_scheduler", "optimizer"):
        del raw["stages"]["sparsify"][key]
    del raw["model"]["legacy"], raw["datasets"]["test"]["stride"], raw["features"]["shift"]
    raw["stages"]["fine-tune"]["early"] = {key: EARLY[key] for key in ("cls", "scorer")}
    raw["objective_terms"]["kl_div"] = cls("auto.objective.ARDPenaltyObjective")
    made, _ = translate.translate_file(write(tmp_path, raw, "no-replicate.json"))
    sparsify, early = made.stage("sparsify"), made.stage("fine-tune").early
    assert sparsify.grad_clip == 0.5 and sparsify.early is None and sparsify.restart is False
    assert sparsify.optimizer.lr == 1e-3 and sparsify.lr_scheduler.name == "trabelsi2017"
    assert (early.patience, early.cooldown, early.rtol, early.atol) == (10, 1, 1e-3, 1e-4)
    assert made.model.kwargs == {"kernel_size": 3}  # "legacy": the kernel that was 3 by mistake
    assert sparsify.model.kwargs == {"kernel_size": 3} and made.seed == 0
    assert made.datasets["test"].stride == 512 and made.features.shift is False
    assert (
        made.objective_terms["kl_div"].reduction == "sum"
        and made.objective_terms["kl_div"].coef == 1.0
    )


def test_the_earlier_form(tmp_path: Path) -> None:
    """`dataset_sources`, features by kind, a stopper that names a feed, and models named in the
    stages only.
    """
    raw = old()
    raw["dataset"] = cls("musicnet.dataset.MusicNetRAM")
    raw["dataset_sources"] = {name: {**row} for name, row in raw.pop("datasets").items()}
    for row in raw["dataset_sources"].values():
        del row["cls"]
    raw["features"] = cls(
        "musicnet.dataset.MusicNetWaveformCollation", kind="fft-shifted", cplx=True
    )
    del raw["scorers"], raw["model"]["cls"], raw["model"]["legacy"]
    for name, kind in (("dense", ""), ("sparsify", "ARD"), ("fine-tune", "Masked")):
        raw["stages"][name]["model"] = cls(f"musicnet.complex.extensions.CplxDeepConvNet{kind}")
        raw["stages"][name]["early"] = {"feed": "valid", "patience": 200}
    made, notes = translate.translate_file(write(tmp_path, raw))
    assert [
        stage.model.name.removeprefix("complex.DeepConvNet") for stage in made.all_stages()
    ] == [
        "",
        "ARD",
        "Masked",
    ]
    assert made.features.model_dump() == {"kind": "fft", "cplx": True, "shift": True}
    assert (
        made.scorers["early-valid"].feed == "valid"
        and made.stage("dense").early.scorer == "early-valid"
    )
    assert any("no batch norm" in note for note in notes)


UNTRANSLATABLE = {
    "frequency": 7,
    "features.signal_ndim": 2,
    "datasets.train.cls": "<class 'cplxpaper.cifar.dataset.CIFAR10'>",
    "datasets.valid.at": 17,
    "feeds.train.n_batches": -1,
    "feeds.valid.shuffle": True,
    "scorers.test.threshold": 1.5,
    "objective_terms.loss.pos_weight": {"dataset": "train"},
    "model.n_channels": 3,
    "model.n_seq": 2048,
    "stages.dense.snapshot": "/data/0-dense.gz",
    "stages.dense.optimizer.cls": "<class 'torch.optim.sgd.SGD'>",
    "stages.dense.early.raises": "<class 'RuntimeError'>",
    "stages.sparsify.objective": "loss + 0.01 * kl_div",
    "stages.sparsify.model.cls": "<class 'os.system'>",
    "stages.fine-tune.lr_scheduler.cls": (
        "<class 'cplxpaper.musicnet.lr_scheduler.FastStepScheduler'>"
    ),
    "stages.fine-tune.extra": None,
}


def test_all_that_has_no_counterpart_is_named_at_once(tmp_path: Path) -> None:
    raw = old()
    for path, value in UNTRANSLATABLE.items():
        *parents, last = path.split(".")
        part = raw
        for key in parents:
            part = part[key]
        part[last] = value
    with pytest.raises(ManifestError, match=f"{len(UNTRANSLATABLE)} faults") as caught:
        translate.translate_file(write(tmp_path, raw), tmp_path / "new.json")
    assert {fault.path: fault.value for fault in caught.value.faults} == UNTRANSLATABLE
    assert not (tmp_path / "new.json").exists()


@pytest.mark.parametrize(
    "path", ["datasets", "features", "feeds", "model", "stages", "stage-order", "stages.dense"]
)
@pytest.mark.parametrize("value", [None, 7, "text", []])
def test_parts_of_another_type_are_faults(tmp_path: Path, path: str, value: object) -> None:
    raw, (*parents, last) = old(), path.split(".")
    part = raw
    for key in parents:
        part = part[key]
    part[last] = value
    with pytest.raises(ManifestError, match=path.replace("-", "[-_]")):
        translate.translate_file(write(tmp_path, raw))


def test_load_names_the_translator(tmp_path: Path) -> None:
    with pytest.raises(
        ManifestError, match=r"older complex_paper system; .* -m cplxnet.auto translate OLD NEW"
    ):
        load(write(tmp_path, old()))


def test_a_manifest_of_this_system_is_not_translated(tmp_path: Path) -> None:
    path = tmp_path / "ours.json"
    grid.experiment_1()["c1e+00-r0"].save(path)
    with pytest.raises(ManifestError, match="not a manifest of the older system"):
        translate.translate_file(path)


def test_the_command_translates_a_file_and_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "old"
    source.mkdir()
    for name in ("musicnet[003]-101.json", "musicnet[004]-102.json"):
        write(source, old(), name)
    assert command.main(["translate", str(source), str(tmp_path / "new")]) == 0
    assert {path.name: load(path).seed for path in (tmp_path / "new").iterdir()} == {
        "musicnet-003-101.json": 3,
        "musicnet-004-102.json": 4,
    }
    assert "device: left out" in capsys.readouterr().out
    bad = old() | {"frequency": 7}
    write(source, bad, "bad.json")
    assert command.main(["translate", str(source), str(tmp_path / "more")]) == 2
    assert "bad.json: frequency: cannot be translated, got 7" in capsys.readouterr().err
    assert not (tmp_path / "more").exists()
    assert command.main(["translate", str(source / "bad.json"), str(tmp_path / "bad.json")]) == 2
