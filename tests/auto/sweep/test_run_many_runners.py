"""Runners killed, and two at a time: every run is done once, to the bits of an undisturbed one."""

import collections
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small import C, assert_same_results, small

from cplxnet.auto import report, run_many
from cplxnet.auto.manifest import grid

VALUES = (0.1, 0.2)
LONG = {f"stages.{name}.n_epochs": 4 for name in ("dense", "sparsify", "fine-tune")}


def write(folder, changes=None):
    manifests = {
        f"c{c}-r{s}": small({C: c, "seed": s} | (changes or {}), window=16)
        for c in VALUES
        for s in (0, 1)
    }
    grid.write(folder, manifests)
    return list(manifests)


def runners(how, folder, data):
    """Exit codes of the runners, and (run, stage, epoch) -> the processes that trained it."""
    script = Path(__file__).parents[1] / "runners.py"
    threads = str(torch.get_num_threads())  # equal bits are promised for an equal number
    command = [sys.executable, "-W", "error", str(script), how, str(folder), str(data), threads]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    log = collections.defaultdict(list)
    for line in (folder / "log.txt").read_text().splitlines():
        run, stage, epoch, process = line.split()
        log[run, stage, int(epoch)].append(process)
    return [int(code) for code in result.stdout.split()], log


def test_two_runners_on_one_folder_share_the_work_and_do_nothing_twice(tiny_corpus, tmp_path):
    names = write(tmp_path)
    codes, log = runners("race", tmp_path, tiny_corpus)
    assert codes == [0, 0]
    assert all(len(processes) == 1 for processes in log.values()), log
    assert len({processes[0] for processes in log.values()}) == 2
    assert [(name, "done", 0) in log for name in names] == [True] * 4
    dense = {key[0][-2:] for key in log if key[1] == "dense"}
    assert (
        dense == {"r0", "r1"} and sum(key[1] == "dense" for key in log) == 4
    )  # two epochs for each seed
    assert set(report.status(tmp_path)["state"]) == {"done"}


@pytest.mark.slow
def test_killed_at_random_moments_every_run_is_done_once_and_to_the_same_bits(
    tiny_corpus, tmp_path
):
    for folder in ("whole", "killed"):
        names = write(tmp_path / folder, LONG)
    run_many(tmp_path / "whole", data=tiny_corpus, progress=False)
    codes, log = runners("kill", tmp_path / "killed", tiny_corpus)
    assert codes.count(-9) >= 20 and codes[-1] == 0, codes
    for name in names:
        assert_same_results(tmp_path / "whole" / name, tmp_path / "killed" / name)
        assert len(log[name, "done", 0]) <= 1  # the kill may come between the two lines
        assert not [
            path.name for path in (tmp_path / "killed" / name).iterdir() if path.suffix == ".part"
        ]
    assert set(report.status(tmp_path / "killed")["state"]) == {"done"}
