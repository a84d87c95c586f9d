"""The command line: what it prints and what it exits with."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from small import C, read, small

import cplxnet
from cplxnet import auto
from cplxnet.auto import report
from cplxnet.auto.__main__ import COMMANDS, main
from cplxnet.auto.manifest import grid
from cplxnet.auto.runner.folder import RunFolder
from cplxnet.auto.runner.trainer import Trainer

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_bars(monkeypatch):
    monkeypatch.setenv("CPLXNET_PROGRESS", "off")


LIGHT = """
import contextlib, sys
from cplxnet.auto.__main__ import main
with contextlib.suppress(SystemExit):
    assert main(sys.argv[1:]) == 0
heavy = {"torch", "matplotlib", "distributed", "scipy", "sklearn", "onnxruntime", "h5py"}
print("imported:", *sorted(heavy & sys.modules.keys()))
"""


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--help"], "status"),
        (["--version"], f"cplxnet {cplxnet.__version__}"),
        (["status", "--help"], "how far"),
        (["report", "--help"], "trade-off"),
        (["status", "runs/reference"], "fine-tune"),
    ],
)
def test_help_and_status_import_nothing_heavy(arguments, shown):
    command = [sys.executable, "-c", LIGHT, *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert shown in result.stdout and result.stdout.endswith("imported:\n"), result.stderr


def test_import_of_the_package_is_light():
    code = "import sys, cplxnet.auto; print({'torch', 'matplotlib', 'pandas'} & sys.modules.keys())"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout == "set()\n", result.stderr


def test_every_name_of_the_package_is_there():
    for name in dir(auto):
        assert getattr(auto, name) is not None
    assert auto.run_many.__name__ == "run_many" and auto.reports.make.__name__ == "make"
    with pytest.raises(AttributeError, match=r"'cplxnet\.auto' has no attribute 'walk'"):
        _ = auto.walk


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help(command, capsys):
    with pytest.raises(SystemExit) as exit:
        main([command, "--help"])
    shown = capsys.readouterr().out
    assert exit.value.code == 0 and f"usage: python -m cplxnet.auto {command}" in shown


def test_the_help_of_report_names_every_kind(capsys):
    with pytest.raises(SystemExit):
        main(["report", "--help"])
    shown = capsys.readouterr().out
    for name, kind in report.KINDS.items():
        assert f"  {name}" in shown and kind.about in shown


@pytest.mark.parametrize("path", [".", "one.json"])
@pytest.mark.parametrize("seconds", ["0", "-1", "0.5", "nan", "inf"])
def test_a_timeout_is_a_finite_number_of_at_least_a_second(seconds, path, tmp_path, capsys):
    grid.write(tmp_path, {"one": small()})
    assert main(["run", str(tmp_path / path), f"--timeout={seconds}"]) == 2
    assert "expected a timeout of at least a second, got " in capsys.readouterr().err
    assert not (tmp_path / "one").exists()


def test_a_timeout_in_words_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit:
        main(["run", str(tmp_path), "--timeout=a minute"])
    assert exit.value.code == 2 and "argument --timeout: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "again"), [([], False), (["--again"], True), (["--again", "a", "b"], ["a", "b"])]
)
def test_again_is_for_all_runs_or_for_those_that_are_named(tmp_path, monkeypatch, words, again):
    grid.write(tmp_path, {"a": small()})
    asked = []

    def run_many(path, *, again, **options):
        asked.append(again)
        return []

    monkeypatch.setattr("cplxnet.auto.sweep.run_many.run_many", run_many)
    assert main(["run", str(tmp_path), *words]) == 0 and asked == [again]


def test_again_of_another_manifest_is_refused(tmp_path, capsys):
    grid.write(tmp_path, {"a": small()})
    assert main(["run", str(tmp_path / "a.json"), "--again", "b"]) == 2
    assert "a.json: expected --again of this manifest, got b" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    grid.write(tmp_path, {f"r{seed}": small({"seed": seed}) for seed in range(3)})
    command = f"{sys.executable} -m cplxnet.auto status {tmp_path} | true"
    result = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert result.stderr == ""


@pytest.mark.parametrize("shown", ["2>&1 | true", "2> /dev/full | true"])
def test_a_run_goes_on_without_a_reader_of_what_it_shows(tiny_corpus, tmp_path, shown):
    """A `tee` that ended, the full disk of a log: before, the grid ended with them."""
    grid.write(tmp_path, {f"r{seed}": small({"seed": seed}, window=16) for seed in (0, 1)})
    run = f"{sys.executable} -m cplxnet.auto run {tmp_path} --data {tiny_corpus}"
    command = f"{run} {shown}; exit ${{PIPESTATUS[0]}}"
    environment = os.environ | {"CPLXNET_PROGRESS": "text"}
    assert subprocess.run(["bash", "-c", command], cwd=ROOT, env=environment).returncode == 0
    assert {read(tmp_path / f"r{seed}", "status")["state"] for seed in (0, 1)} == {"done"}


def test_a_folder_as_people_run_it(tiny_corpus, tmp_path):
    grid.write(tmp_path, {"one": small({C: 0.1})})
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "cplxnet.auto",
        "run",
        str(tmp_path),
        "--data",
        str(tiny_corpus),
    ]
    environment = os.environ | {"CPLXNET_PROGRESS": "text"}
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert (result.returncode, result.stdout) == (0, "one: done\n"), result.stderr
    assert "fine-tune: 100%" in result.stderr
    assert RunFolder(tmp_path / "one").status["state"] == "done"


def test_one_manifest_in_the_folder_of_its_name(tiny_corpus, tmp_path, capsys):
    small().save(tmp_path / "c1e-02-r0.json")
    assert main(["run", str(tmp_path / "c1e-02-r0.json"), "--data", str(tiny_corpus)]) == 0
    scores = tmp_path / "c1e-02-r0" / "scores.json"
    assert capsys.readouterr().out == f"done: {scores}\n" and scores.exists()


@pytest.mark.parametrize(("options", "source"), [((), "a"), (("--no-reuse",), None)])
def test_one_manifest_takes_what_its_neighbours_have_trained(
    tiny_corpus, tmp_path, options, source
):
    grid.write(tmp_path, {"a": small({C: 0.1}), "b": small({C: 0.2})})
    for name in "ab":
        assert (
            main(["run", str(tmp_path / f"{name}.json"), "--data", str(tiny_corpus), *options]) == 0
        )
    stages = read(tmp_path / "b")["stages"]
    assert [stage["reused_from"] for stage in stages.values()] == [source, None, None]


@pytest.fixture(scope="module")
def folder(tiny_corpus, tmp_path_factory):
    """A folder of two runs, one of which fails, run; with exit code."""
    folder = tmp_path_factory.mktemp("folder")
    grid.write(folder, {"bad": small({"datasets.test.file": "absent.h5"}), "good": small()})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CPLXNET_PROGRESS", "off")
        code = main(["run", str(folder), "--data", str(tiny_corpus), "--devices", "cpu"])
    return folder, code


def test_a_failed_run_is_told_by_the_exit_code(folder, tiny_corpus, capsys):
    assert folder[1] == 1
    assert main(["run", str(folder[0]), "--data", str(tiny_corpus)]) == 1
    shown = capsys.readouterr()
    assert shown.out.startswith("bad: failed (FileNotFoundError: ") and shown.out.endswith(
        "good: skipped\n"
    )
    assert "1 of 2 runs did not finish\n" in shown.err  # its data are missing: no lasting state
    assert "the same command tries the others again" in shown.err
    assert "--retry-failed" not in shown.err


def test_status_shows_how_far_each_is(folder, tmp_path, capsys):
    assert main(["status", str(folder[0])]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "done" in lines["good"] and "fine-tune" in lines["good"]
    assert "queued" in lines["bad"]  # its data are missing: it is tried again
    assert lines["good"].split()[:5] == ["good", "done", "fine-tune", "2", "2"]
    assert not {"None", "NaN", "<NA>"} & {word for line in lines.values() for word in line.split()}
    grid.write(tmp_path, {"one": small()})
    assert main(["status", str(tmp_path)]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert shown == [["state"], ["run"], ["one", "queued"]]


def test_report_prints_a_row_a_stage_and_writes_the_whole_table(folder, tmp_path, capsys):
    assert main(["report", str(folder[0]), "--csv", str(tmp_path / "table.csv")]) == 0
    out = capsys.readouterr().out
    assert [line.split()[1] for line in out.splitlines()[1:4]] == ["dense", "sparsify", "fine-tune"]
    assert [line.split()[0] for line in out.splitlines()[4:]] == ["Dense:", "VD"]  # the readings
    table = pd.read_csv(tmp_path / "table.csv")
    assert len(table) == 3 * 2 and set(table["scorer"]) == {"validation", "test"}
    end = RunFolder(folder[0] / "good").scores["stages"]["dense"]["scores"]["test"]["end"][
        "average_precision"
    ]
    assert table.query("stage == 'dense' and scorer == 'test'")[
        "average_precision"
    ].item() == pytest.approx(end)


def test_report_of_a_grid_that_is_not_run_names_what_is_missing(tmp_path, capsys):
    grid.write(tmp_path, {"one": small()})
    csv = tmp_path / "new" / "table.csv"  # with a header, in a folder that is made
    assert main(["report", str(tmp_path), "--csv", str(csv)]) == 0
    captured = capsys.readouterr()
    assert captured.out == "" and "1 of 1 runs are not done: one (queued)." in captured.err
    assert pd.read_csv(csv).empty


@pytest.mark.parametrize("command", ["run", "status", "report"])
def test_a_missing_path_is_an_error_not_a_no_op(tmp_path, capsys, command):
    assert main([command, str(tmp_path / "none")]) == 2
    assert "none: expected a" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("command", ["run", "report", "status"])
def test_an_empty_folder_is_an_error(tmp_path, capsys, command):
    assert main([command, str(tmp_path)]) == 2
    assert "no manifests in this folder" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["status", "report"])
def test_a_file_where_a_folder_belongs(tmp_path, capsys, command):
    small().save(tmp_path / "one.json")
    assert main([command, str(tmp_path / "one.json")]) == 2
    assert "one.json: expected a folder of manifests, got a file" in capsys.readouterr().err


def test_a_faulty_manifest_is_named_and_not_run(tmp_path, capsys):
    (tmp_path / "one.json").write_text('{"schema": 1')
    assert main(["run", str(tmp_path / "one.json")]) == 2
    assert "one.json" in capsys.readouterr().err
    assert not (tmp_path / "one").exists()


def test_a_device_that_is_not_there(tiny_corpus, tmp_path, capsys):
    grid.write(tmp_path, {"one": small()})
    for path in (tmp_path, tmp_path / "one.json"):
        assert main(["run", str(path), "--data", str(tiny_corpus), "--devices", "cuda:99"]) == 2
        assert "expected a device that torch has here (cpu" in capsys.readouterr().err
    assert not (tmp_path / "one").exists()


def test_missing_data_of_a_single_manifest(tmp_path, capsys):
    small().save(tmp_path / "one.json")
    assert main(["run", str(tmp_path / "one.json"), "--data", str(tmp_path / "data")]) == 2
    assert "musicnet_11khz_train.h5" in capsys.readouterr().err


def test_a_single_run_that_diverges(tiny_corpus, tmp_path, capsys):
    small({"stages.dense.optimizer.lr": 1e30}).save(tmp_path / "one.json")
    assert main(["run", str(tmp_path / "one.json"), "--data", str(tiny_corpus)]) == 1
    assert "diverged: loss" in capsys.readouterr().err


def test_ctrl_c(tiny_corpus, tmp_path, monkeypatch, capsys):
    small().save(tmp_path / "one.json")

    def interrupted(self, reuse):
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "run", interrupted)
    assert main(["run", str(tmp_path / "one.json"), "--data", str(tiny_corpus)]) == 130
    assert "the same command goes on from here" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["walk"], ["run"]])
def test_a_wrong_command_shows_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2 and "usage: python -m cplxnet.auto" in capsys.readouterr().err


def test_a_run_folder_of_config_and_snapshots_alone_is_exported(done, tmp_path):
    for name in ("config.json", "2-fine-tune.pt"):
        (tmp_path / "run").mkdir(exist_ok=True)
        shutil.copy(done / name, tmp_path / "run")
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "net.safetensors")]) == 0


def test_verify_reads_every_grid_of_a_folder(done, tmp_path, capsys):
    for name in ("whole", "spoilt"):
        grid.write(tmp_path / name, {"one": small()})
        shutil.copytree(done, tmp_path / name / "one")
    assert main(["status", str(tmp_path), "--verify"]) == 0
    (tmp_path / "spoilt" / "one" / "history.jsonl").unlink()
    assert main(["status", str(tmp_path), "--verify"]) == 1
    shown = capsys.readouterr()
    assert f"{tmp_path / 'spoilt' / 'one'}: history.jsonl is lost" in shown.out
    assert f"run {tmp_path / 'spoilt'} --again one" in shown.err and "whole" not in shown.err


def test_verify_advises_again_only_where_that_helps(done, tmp_path, capsys):
    grid.write(tmp_path, {"one": small()})
    shutil.copytree(done, tmp_path / "one")
    (tmp_path / "one" / "config.json").write_text("{")
    assert main(["status", str(tmp_path), "--verify"]) == 1
    shown = capsys.readouterr()
    assert "config.json: expected JSON" in shown.out and "delete it" in shown.out
    assert "--again" not in shown.err


def test_watch_ends_where_only_somebody_can_go_on(done, tmp_path, monkeypatch):
    def too_long(seconds):
        raise AssertionError("it goes on watching")

    monkeypatch.setattr("time.sleep", too_long)
    grid.write(tmp_path, {name: small() for name in ("changed", "broken", "damaged")})
    for path in tmp_path.glob("*.json"):
        shutil.copytree(done, path.with_suffix(""))
    small({"seed": 7}).save(tmp_path / "changed.json")
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "damaged" / "status.json").write_text("{")
    assert main(["status", str(tmp_path), "--watch"]) == 0


# -- what was meant --------------------------------------------------------------------------------


@pytest.fixture
def grid_of_one(done, tmp_path, monkeypatch):
    """A folder with a manifest, its finished run and one that is not run; the working directory."""
    monkeypatch.chdir(tmp_path)
    grid.write(tmp_path / "grid", {"one": small(), "two": small({"seed": 1})})
    (tmp_path / "grid" / "one").symlink_to(done)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "grid/one"], "grid/one: expected a manifest or a folder of manifests, got a run's "
         "folder; try grid/one.json"),
        (["status", "grid/one"], "grid/one: expected a folder of manifests, got a run's folder; "
         "try grid"),
        (["status", "grid/one.json"], "grid/one.json: expected a folder of manifests, got a file; "
         "try grid"),
        (["report", "grid/one"], "got a run's folder; try grid"),
        (["report", "layers", "grid/one"], "got a run's folder; try grid"),
        (["page", "grid/one.json"], "got a file; try grid"),
        (["export", "grid/one.json", "net.onnx"], "grid/one.json: expected a run's folder, got a "
         "file; try grid/one"),
        (["export", "grid/two", "net.onnx"], "got nothing there; try run grid/two.json first"),
        (["export", "grid/two.json", "net.onnx"], "got a file; try run grid/two.json first"),
        (["export", "grid/c2.5e-03-r0", "net.onnx"],
         "got nothing there; try run grid/c2.5e-03-r0.json first"),
        (["run", "grid/c2.5e-03-r0"], "got nothing there; try grid/c2.5e-03-r0.json"),
        (["export", "grid", "net.onnx"], "expected a run's folder, got a folder of manifests"),
        (["transcribe", "a.wav", "--model", "grid/one.json"], "got a file; try grid/one"),
        *(([command, "gird"], "gird: expected a {}folder of manifests, got nothing there (working "
           "directory: {cwd})") for command in ("run", "status", "report", "page")),
        *(([command, path], f"{path}: expected a {{}}folder of manifests, got {got} (working "
           "directory: {cwd}; folders of manifests: runs/demo)")
          for command in ("run", "report", "page")
          for path, got in (("runs", "no manifests in this folder"), ("runs/x", "nothing there"))),
        (["status"], "runs: expected a folder of manifests, got nothing there (working directory"),
        (["transcribe", "a.wav"], "a.wav: expected a file, got nothing there (working directory: "
         "{cwd})"),
    ],
)  # fmt: skip
def test_a_path_to_something_else_says_what_was_meant_in_one_line(
    grid_of_one, capsys, arguments, said
):
    small().save(grid_of_one / "grid" / "c2.5e-03-r0.json")
    if arguments[1:] in (["runs"], ["runs/x"]):
        (grid_of_one / "runs").mkdir()
        (grid_of_one / "runs" / "demo").symlink_to(grid_of_one / "grid")
    if arguments[0] == "report" and arguments[1] == "gird":
        arguments = ["report", "./gird"]  # else it may be a kind
    assert main(arguments) == 2
    shown = capsys.readouterr().err
    manifest = "manifest or a " if arguments[0] == "run" else ""
    assert said.replace("{}", manifest).replace("{cwd}", str(grid_of_one)) in shown
    assert shown.count("\n") == 1 and not (grid_of_one / "net.onnx").exists()


def test_status_of_a_folder_of_grids_counts_their_runs(grid_of_one, capsys):
    (grid_of_one / "runs").mkdir()
    (grid_of_one / "runs" / "demo").symlink_to(grid_of_one / "grid")
    grid.write(grid_of_one / "runs" / "other", {"three": small()})
    for arguments in (["status"], ["status", "runs"]):
        assert main(arguments) == 0
        rows = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert rows == [
            ["runs", "done", "queued"],
            ["runs/demo", "2", "1", "1"],
            ["runs/other", "1", "0", "1"],
        ]


def test_status_is_refreshed_until_all_is_done(grid_of_one, tiny_corpus, monkeypatch, capsys):
    looks = []

    def look_again(seconds):
        looks.append(seconds)
        if len(looks) == 2:
            main(["run", "grid", "--data", str(tiny_corpus)])

    monkeypatch.setattr("cplxnet.auto.__main__.WATCH_EVERY_S", 0.0)
    monkeypatch.setattr("time.sleep", look_again)
    assert main(["status", "grid", "--watch"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("queued") == 1 and shown.count("two") == 3  # twice in a table, run once
    assert len(looks) == 2


def test_ctrl_c_ends_the_watch_quietly(grid_of_one, monkeypatch, capsys):
    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupted)
    assert main(["status", "grid", "--watch"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("net.onnx", "onnx-compact"),
        ("net.pt", "cplxmodule"),
        ("net.safetensors", "compact"),
        ("net", "compact"),
    ],
)
def test_the_suffix_decides_what_is_exported(grid_of_one, monkeypatch, capsys, name, kind):
    asked = []

    def export(run, file, *, kind, **options):
        asked.append(kind)
        file.write_bytes(b"")
        return file

    monkeypatch.setattr("cplxnet.auto.models.export", export)
    assert main(["export", "grid/one", name]) == 0
    assert asked == [kind] and capsys.readouterr().out == f"{kind}: {name}, 0 bytes\n"


@pytest.mark.parametrize(("name", "kind"), [("net.onnx", "compact"), ("net.pt", "onnx")])
def test_a_suffix_of_another_format_is_refused(grid_of_one, capsys, name, kind):
    assert main(["export", "grid/one", name, "--as", kind]) == 2
    assert f"{name}: expected a name that ends in .onnx for ONNX alone" in capsys.readouterr().err
    assert not (grid_of_one / name).exists()


ESCAPES = "\x1b]0;title\x07\x1b[2J"


def test_no_escape_sequence_of_others_reaches_the_terminal(done, tmp_path, capsys):
    folder = tmp_path / f"grid{ESCAPES}"
    grid.write(folder, {"one": small(), "two": small({"seed": 1})})
    (folder / "one").mkdir()
    status = {"state": "failed", "reason": f"why{ESCAPES}", "stage": ESCAPES, "notes": [ESCAPES]}
    (folder / "one" / "status.json").write_text(json.dumps(status))
    (folder / "two").mkdir()
    (folder / "two" / "scores.json").write_text(json.dumps({"stages": {ESCAPES: {}}, "x": 1}))
    for arguments in (
        ["status", str(folder)],
        ["report", str(folder)],
        ["run", str(folder)],
        ["run", str(folder / "one.json"), "--data", ESCAPES],
        ["status", str(tmp_path / ESCAPES)],
    ):
        main(arguments)
        shown = "".join(capsys.readouterr())
        assert "\x1b" not in shown and "\x07" not in shown, arguments
        assert "\\u001b" in shown, arguments


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_terminal_that_lacks_a_character_shows_it_escaped(tmp_path, monkeypatch, encoding):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr("sys.stdout", terminal)
    grid.write(tmp_path / "Dvo\u0159\u00e1k", {"one": small()})
    assert main(["status", str(tmp_path)]) == 0
    terminal.flush()
    shown = terminal.buffer.getvalue().decode(encoding)
    assert "Dvo\\u0159" in shown and ("\u00e1k" in shown) == (encoding != "ascii")


def test_a_run_that_fails_is_told_without_a_traceback(tiny_corpus, tmp_path, monkeypatch, capsys):
    def full(self, others):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB\nmore")

    monkeypatch.setattr(Trainer, "run", full)
    small().save(tmp_path / "one.json")
    assert main(["run", str(tmp_path / "one.json"), "--data", str(tiny_corpus)]) == 1
    assert capsys.readouterr().err == (
        "failed: cpu has too little memory for this run: CUDA out of memory. Tried to allocate "
        "9 GiB; try --per-device 1, less data, or samples int16 in the manifest\n"
        f"see {tmp_path / 'one' / 'traceback.txt'}\n"
    )
