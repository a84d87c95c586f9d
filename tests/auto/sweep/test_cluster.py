"""Runs on Dask workers: the same bits, and workers that die or hang."""

import contextlib
import http.server
import os
import re
import signal
import socket
import ssl
import threading
import time
import types
from pathlib import Path

import pytest
from distributed import Client, KilledWorker
from distributed.security import Security
from processes import WITHIN_S, assert_undisturbed, under_way, until
from small import C, read, small

from cplxnet.auto import report, run_many
from cplxnet.auto.manifest import grid
from cplxnet.auto.runner.folder import RunFolder
from cplxnet.auto.runner.stop import Interrupted, Stop
from cplxnet.auto.sweep import cluster
from cplxnet.auto.sweep.queue import Queue, Settings

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # sockets of workers killed on purpose
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
MANY = {"stages.dense.n_epochs": 150, "stages.dense.early": None, "feeds.train.n_batches": 1}


def tiny(changes):
    """A run whose checkpoints are quick to write: many epochs are met in a moment."""
    return small(changes, window=16)


def send(folder, number, at=(2,)):
    """Signal the process that trains the run, at each of these numbers of epochs, from a thread.

    Returns the thread, and the list of the processes that it hits.
    """
    hit = []

    def sending():
        for n_epochs in at:
            process = under_way(folder, n_epochs)
            while process in hit:
                time.sleep(0.02)
                process = under_way(folder, n_epochs)
            hit.append(process)
            os.kill(process, number)

    thread = threading.Thread(target=sending, daemon=True)
    thread.start()
    return thread, hit


def test_two_workers_give_the_scores_of_a_run_alone_with_shared_stages_trained_once(
    tiny_corpus, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("CPLXNET_PROGRESS", "text")
    grid.write(
        tmp_path, {f"c{c}-r{s}": small({C: c, "seed": s}) for c in (0.1, 0.2) for s in (0, 1)}
    )
    outcomes = run_many(tmp_path, devices=["cpu"], per_device=2, data=tiny_corpus)
    shown = capsys.readouterr().err
    assert re.search(r"Dask dashboard: http://127\.0\.0\.1:\d+/status", shown)
    assert (
        "stages that runs share are trained once: 20 epochs in place of 24, 17% fewer" in shown
        and "4/4" in shown
    )
    assert {outcome.state for outcome in outcomes} == {"done"} and len(outcomes) == 4
    assert_undisturbed(tmp_path / "c0.2-r1", small({C: 0.2, "seed": 1}), tiny_corpus, tmp_path)
    reused = [
        read(tmp_path / name)["stages"]["dense"]["reused_from"]
        for name in report.status(tmp_path).index
    ]
    assert sum(value is None for value in reused) == 2  # one for each seed
    owners = {
        RunFolder(tmp_path / name).status["owner"]["pid"] for name in report.status(tmp_path).index
    }
    assert len(owners) == 2 and os.getpid() not in owners


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_the_run_of_a_worker_that_dies_or_hangs_goes_to_another(tiny_corpus, tmp_path, number):
    grid.write(tmp_path, {"one": tiny(MANY), "two": tiny({"seed": 1})})
    thread, hit = send(tmp_path / "one", number)
    outcomes = run_many(
        tmp_path, devices=["cpu"], per_device=2, data=tiny_corpus, progress=False, timeout_s=12.0
    )
    thread.join(60)
    assert [outcome.state for outcome in outcomes] == ["done", "done"] and len(hit) == 1
    assert RunFolder(tmp_path / "one").status["owner"]["pid"] != hit[0]
    assert_undisturbed(tmp_path / "one", tiny(MANY), tiny_corpus, tmp_path)


def test_a_run_whose_workers_die_four_times_in_one_epoch_has_failed_and_the_other_is_done(
    tiny_corpus, tmp_path
):
    endless = {"feeds.train.n_batches": 10**7}
    grid.write(tmp_path, {"one": tiny(MANY | endless), "two": tiny({"seed": 1})})
    thread, hit = send(tmp_path / "one", signal.SIGKILL, at=[0] * 4)
    outcomes = run_many(tmp_path, devices=["cpu"], per_device=2, data=tiny_corpus, progress=False)
    thread.join(60)
    assert [outcome.state for outcome in outcomes] == ["failed", "done"] and len(hit) == 4
    assert "its worker died 4 times" in outcomes[0].reason
    status = RunFolder(tmp_path / "one").status
    assert status["state"] == "failed" and "its worker died 4 times" in status["reason"]


@pytest.mark.parametrize("progress", [True, False])
def test_deaths_of_workers_count_only_without_progress(tmp_path, progress):
    runs = Queue({"one": small()}, Settings(tmp_path, tmp_path / "data"))
    runs.take()
    RunFolder(tmp_path / "one").write_history([{"epoch": 0}] * progress)
    error = KilledWorker("work-1", types.SimpleNamespace(address="tcp://a"), 3)
    cluster._settle(types.SimpleNamespace(status="error", exception=lambda: error), "one", runs)
    assert runs.pending == (["one"] if progress else [])
    assert [outcome.state for outcome in runs.all_outcomes()] == ([] if progress else ["failed"])


@pytest.mark.faults
def test_a_run_whose_workers_die_but_get_further_is_done(tiny_corpus, tmp_path):
    grid.write(tmp_path, {"one": tiny(MANY), "two": tiny({"seed": 1})})
    thread, hit = send(tmp_path / "one", signal.SIGKILL, at=range(10, 60, 10))
    outcomes = run_many(tmp_path, devices=["cpu"], per_device=2, data=tiny_corpus, progress=False)
    thread.join(60)
    assert [outcome.state for outcome in outcomes] == ["done", "done"] and len(hit) == 5
    assert_undisturbed(tmp_path / "one", tiny(MANY), tiny_corpus, tmp_path)


@pytest.mark.parametrize(("code", "told"), [(200, True), (404, False), (None, True)])
def test_the_dashboard_is_told_unless_its_server_has_none(code, told):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(code)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        link = f"http://127.0.0.1:{server.server_port}/status"
        if code is None:  # nobody answers
            server.server_close()
        else:
            threading.Thread(target=server.handle_request, daemon=True).start()
        shown = cluster._dashboard(types.SimpleNamespace(dashboard_link=link))
    assert shown == (f"Dask dashboard: {link}" if told else "")


def test_a_client_without_the_certificate_is_refused(tmp_path):
    """Whoever is let in has the workers run code, as any user of the machine could before."""
    with cluster._local_workers(1, Settings(tmp_path, tmp_path, progress=False), Stop()) as client:
        address = client.scheduler.address
        assert address.startswith("tls://127.0.0.1:")
        (worker,) = client.scheduler_info()["workers"]
        assert worker.startswith("tls://127.0.0.1:")
        assert client.submit(os.getpid).result(timeout=WITHIN_S) != os.getpid()

        for place in (address, worker):
            plain = place.replace("tls://", "tcp://")
            for there, security in ((place, Security.temporary()), (plain, None)):
                with pytest.raises(OSError):
                    Client(there, security=security, timeout="5 s")

            # TLS alone, with no certificate at all
            host, port = place.removeprefix("tls://").split(":")
            anybody = ssl.create_default_context()
            anybody.check_hostname = False
            anybody.verify_mode = ssl.CERT_NONE
            with (
                pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"),
                socket.create_connection((host, int(port)), timeout=60) as connection,
                anybody.wrap_socket(connection) as stream,
            ):
                stream.recv(1)


@pytest.mark.parametrize("deaths", [1, cluster.STARTS])
def test_a_worker_that_dies_as_the_cluster_starts(tmp_path, monkeypatch, capsys, deaths):
    made = []

    class Starting:
        def __init__(self, **options):
            made.append(options)
            if len(made) <= deaths:
                raise RuntimeError("Nanny failed to start worker process")

    monkeypatch.setattr(cluster, "LocalCluster", Starting)
    monkeypatch.setenv("CPLXNET_PROGRESS", "text")
    if deaths < cluster.STARTS:
        assert isinstance(cluster._started(2, Settings(tmp_path, tmp_path), Stop()), Starting)
    else:
        told = f"expected 2 workers on this machine, got one that died at each of {deaths} starts"
        with pytest.raises(ConnectionError, match=told):
            cluster._started(2, Settings(tmp_path, tmp_path), Stop())
    assert "a worker died as it started (Nanny failed to start" in capsys.readouterr().err


def test_a_worker_that_a_stop_ends_as_the_cluster_starts_is_not_started_again(
    tmp_path, monkeypatch
):
    asked = Stop()

    def stopped(**options):
        asked.ask(60.0)
        raise RuntimeError("Nanny failed to start worker process")

    monkeypatch.setattr(cluster, "LocalCluster", stopped)
    with pytest.raises(Interrupted):
        cluster._started(2, Settings(tmp_path, tmp_path), asked)


def test_half_a_cluster_is_not_closed_at_the_end_of_the_process(tmp_path, monkeypatch):
    def interrupted(**options):
        raise KeyboardInterrupt

    left_out = []
    monkeypatch.setattr(cluster, "LocalCluster", interrupted)
    monkeypatch.setattr("atexit.unregister", left_out.append)
    with pytest.raises(KeyboardInterrupt):
        cluster._started(2, Settings(tmp_path, tmp_path), Stop())
    assert left_out == [cluster.close_clusters]


@pytest.mark.faults
def test_a_real_worker_killed_as_the_cluster_starts(tiny_corpus, tmp_path, started):
    grid.write(tmp_path / "grid", {f"r{seed}": tiny({"seed": seed}) for seed in (0, 1)})
    command = started.command(tmp_path / "grid", tiny_corpus, "--per-device", 2)

    def worker():
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                parent = int((path.parent / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == command.pid and b"spawn_main" in path.read_bytes():
                    return int(path.parent.name)
        return None

    os.kill(until("a worker", worker, command=command), signal.SIGKILL)
    assert command.wait(WITHIN_S) == 0, started.logs()
    shown = command.log.read_text(errors="replace")
    assert "Traceback" not in shown and "r0: done" in shown and "r1: done" in shown
