"""The command with a scheduler of its own process, which goes away in the middle and comes back."""

import os
import subprocess

import pytest
from processes import WITHIN_S, assert_undisturbed, free_port, kill, long, under_way, until
from small import small

from cplxnet.auto import run_many
from cplxnet.auto.__main__ import main
from cplxnet.auto.manifest import grid

pytestmark = pytest.mark.slow


@pytest.mark.faults
def test_a_scheduler_that_goes_away_and_comes_back(tiny_corpus, tmp_path, started):
    grid.write(tmp_path / "grid", {f"r{seed}": long(seed) for seed in (0, 1)})
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    scheduler = started.scheduler(port)
    started.workers(address)
    command = started.command(
        tmp_path / "grid", tiny_corpus, "--cluster", address, "--timeout", "30"
    )
    under_way(tmp_path / "grid" / "r0", command=command)
    kill(scheduler)
    scheduler.wait(60)
    away = "is away; trying for 600 s"
    until("a word on it", lambda: away in command.log.read_text(errors="replace"), command=command)
    started.scheduler(port)
    assert command.wait(WITHIN_S) == 0, started.logs()
    shown = command.log.read_text(errors="replace")
    assert (
        f"the scheduler at {address} is back" in shown
        and "r0: done" in shown
        and "r1: done" in shown
    )
    for seed in (0, 1):
        folder = tmp_path / "grid" / f"r{seed}"
        assert_undisturbed(folder, long(seed), tiny_corpus, tmp_path)


def test_no_scheduler_at_the_address_is_an_error(tiny_corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("cplxnet.auto.sweep.cluster.CONNECT_S", 0.5)
    grid.write(tmp_path, {"one": long()})
    address = f"tcp://127.0.0.1:{free_port()}"
    with pytest.raises(
        ConnectionError, match=f"expected a Dask scheduler at {address}, got .*try `dask scheduler`"
    ):
        run_many(tmp_path, address=address, data=tiny_corpus, progress=False)
    with pytest.raises(ConnectionError, match="expected a Dask scheduler at nonsense://x"):
        run_many(tmp_path, address="nonsense://x", data=tiny_corpus, progress=False)
    assert main(["run", str(tmp_path), "--cluster", address]) == 2
    assert "expected a Dask scheduler" in capsys.readouterr().err
    assert not (tmp_path / "one").exists()


@pytest.mark.faults
def test_a_cluster_with_tls_by_the_commands_of_the_help(
    tiny_corpus, tmp_path, started, monkeypatch, capsys
):
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    lines = capsys.readouterr().out.replace("\\\n", "").splitlines()
    openssl = next(line for line in lines if line.startswith("  openssl "))
    subprocess.run(openssl, shell=True, check=True, cwd=tmp_path, capture_output=True)
    for line in lines:
        if line.startswith("  export "):
            name, _, value = line.removeprefix("  export ").partition("=")
            monkeypatch.setenv(name, value.replace("$PWD", str(tmp_path)))

    grid.write(tmp_path / "grid", {"one": small()})
    port = free_port()
    address = f"tls://127.0.0.1:{port}"
    started.scheduler(port, protocol="tls")
    started.workers(address)
    command = started.command(tmp_path / "grid", tiny_corpus, "--cluster", address)
    assert command.wait(WITHIN_S) == 0, started.logs()
    assert "one: done" in command.log.read_text(errors="replace")

    for name in [name for name in os.environ if name.startswith("DASK_DISTRIBUTED__COMM__")]:
        monkeypatch.delenv(name)
    command = started.command(tmp_path / "grid", tiny_corpus, "--cluster", address)
    assert command.wait(WITHIN_S) == 2, started.logs()  # without the certificate
    assert f"expected a Dask scheduler at {address}" in command.log.read_text(errors="replace")
