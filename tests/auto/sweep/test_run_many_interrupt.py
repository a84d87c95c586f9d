"""Ctrl-C: the first stops in order and leaves all to be gone on with, the second stops at once."""

import os
import signal
import sys
from pathlib import Path

import pytest
from processes import WITHIN_S, assert_undisturbed, kill, long, under_way, until

from cplxnet.auto import report, run_many
from cplxnet.auto.manifest import grid
from cplxnet.auto.runner.folder import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.faults]
SLOW_STOP = Path(__file__).parents[1] / "slow_stop.py"


def ended(process):
    """Whether no such process is left that could still do anything."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


@pytest.mark.parametrize("at_a_time", [1, 2], ids=["in this process", "on workers"])
def test_ctrl_c_once_and_twice_and_then_to_the_end(
    tiny_corpus, tmp_path, started, monkeypatch, at_a_time
):
    folder, manifests = tmp_path / "grid", {f"r{seed}": long(seed) for seed in range(at_a_time)}
    grid.write(folder, manifests)
    options = ["--per-device", at_a_time]

    slots = tmp_path / f"cplxnet-slots-{os.getuid()}"
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    command = started.command(folder, tiny_corpus, *options)
    for name in manifests:
        under_way(folder / name, command=command)
    kill(command, signal.SIGINT)  # as a terminal does: every process gets it
    assert command.wait(WITHIN_S) == 130, started.logs()
    shown = command.log.read_text(errors="replace")
    assert "interrupted; the same command goes on from here" in shown and "Traceback" not in shown
    assert not slots.exists() or not list(slots.iterdir())
    reached = {}
    for name in manifests:
        status = RunFolder(folder / name).status
        assert status["state"] == "interrupted" and status["reason"].startswith(
            ("KeyboardInterrupt", "Interrupted")
        )
        reached[name] = status["epoch"]
    assert max(reached.values()) < 150

    command = started(
        sys.executable, SLOW_STOP, "run", folder, "--data", tiny_corpus, *options, name="slow"
    )
    owners = {under_way(folder / name, reached[name] + 1, command) for name in manifests}
    os.kill(command.pid, signal.SIGINT)
    until(
        "a stop under way",
        lambda: "stopping" in command.log.read_text(errors="replace"),
        command=command,
    )
    os.kill(command.pid, signal.SIGINT)
    assert command.wait(60) == 130, started.logs()  # it would have taken ten minutes
    until("the end of the workers", lambda: all(ended(owner) for owner in owners))
    assert set(report.status(folder)["state"]) == {"interrupted"}

    assert [outcome.state for outcome in run_many(folder, data=tiny_corpus, progress=False)] == [
        "done"
    ] * at_a_time
    for name, manifest in manifests.items():
        assert_undisturbed(folder / name, manifest, tiny_corpus, tmp_path)
