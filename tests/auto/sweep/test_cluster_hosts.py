"""Three hosts of namespaces: scheduler and command on one, workers on two, one is cut off.

Each has a network, host name, process numbers and temporary folder; the file system is shared.
"""

import hashlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from processes import WITHIN_S, _session, assert_undisturbed, kill, long, until

from cplxnet.auto.manifest import grid
from cplxnet.auto.runner.folder import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.faults]
HOSTS = ("a", "b", "c")


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


class Hosts:
    """Host a is a bridge that the others are plugged into; 10.213.7.1, .2 and .3."""

    def __init__(self, tmp_path):
        self.names = {host: f"cplx{os.getpid()}{host}" for host in HOSTS}
        self.folders = {host: tmp_path / f"tmp-{host}" for host in HOSTS}

    def make(self):
        for host, name in self.names.items():
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
            self.folders[host].mkdir()
        a = self.names["a"]
        ip("-n", a, "link", "add", "eth0", "type", "bridge")
        for host in "bc":
            ip(
                "-n",
                a,
                "link",
                "add",
                f"to-{host}",
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                self.names[host],
            )
            ip("-n", a, "link", "set", f"to-{host}", "master", "eth0", "up")
        for number, name in enumerate(self.names.values(), 1):
            ip("-n", name, "address", "add", f"10.213.7.{number}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")

    def wrap(self, host):
        """What a command is preceded by to run on the host."""
        name = f"echo host-{host} > /proc/sys/kernel/hostname"
        enter = f'{name} && TMPDIR={self.folders[host]} exec "$0" "$@"'
        apart = ["unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
        return ["ip", "netns", "exec", self.names[host], *apart, "sh", "-c", enter]

    def plug(self, host, state):
        ip("-n", self.names["a"], "link", "set", f"to-{host}", state)

    def remove(self):
        for name in self.names.values():
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@pytest.fixture
def hosts(tmp_path):
    for tool in ("ip", "unshare"):
        if shutil.which(tool) is None:
            pytest.skip(f"no network namespaces without `{tool}`")
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    found = Hosts(tmp_path)
    try:
        try:
            found.make()
            subprocess.run([*found.wrap("b"), "true"], check=True, capture_output=True, text=True)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"namespaces are not allowed here: {error.cmd}: {error.stderr.strip()}")
        yield found
    finally:
        found.remove()


@pytest.fixture
def started_first(hosts, started):
    """Processes end before their hosts go."""
    return started


def under_way_on(folder, host):
    """The run that this host has trained two epochs of."""
    for path in sorted(folder.glob("*.json")):
        status = RunFolder(path.with_suffix("")).status
        if (
            status["state"] == "running"
            and status["owner"]["host"] == host
            and status.get("epoch", 0) >= 2
        ):
            return path.stem
    return None


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def processes(session):
    """Those of a session that run Python, by number and start."""
    found = [path.parent for path in Path("/proc").glob("[0-9]*/stat") if _session(path) == session]
    return [path for path in found if b"python" in (path / "cmdline").read_bytes().split(b"\0")[0]]


def test_a_host_cut_off_in_the_middle(hosts, started_first, tiny_corpus, tmp_path):
    started, folder = started_first, tmp_path / "grid"
    manifests = {f"r{seed}": long(seed) for seed in (0, 1)}
    grid.write(folder, manifests)
    address = "tcp://10.213.7.1:8786"
    scheduler = started.scheduler(8786, host="10.213.7.1", wrap=hosts.wrap("a"))
    workers = {host: started.workers(address, wrap=hosts.wrap(host)) for host in "bc"}
    until("two workers", lambda: scheduler.log.read_text().count("Register worker") >= 2)
    command = started.command(
        folder, tiny_corpus, "--cluster", address, "--timeout", "10", wrap=hosts.wrap("a")
    )
    name = until("a run on the host c", lambda: under_way_on(folder, "host-c"), command=command)
    kill(
        workers["c"], signal.SIGSTOP
    )  # its processes hang, as they do on a file system that is gone
    hosts.plug("c", "down")
    late = processes(workers["c"].pid)
    assert command.wait(WITHIN_S) == 0, started.logs()
    assert RunFolder(folder / name).status["owner"]["host"] == "host-b"
    for run, manifest in manifests.items():
        assert_undisturbed(folder / run, manifest, tiny_corpus, tmp_path)
        assert [(line["stage"], line["epoch"]) for line in RunFolder(folder / run).history] == [
            (stage.name, epoch)
            for stage in manifest.all_stages()
            for epoch in range(stage.n_epochs)
        ]
    before = digests(folder / name)
    hosts.plug("c", "up")
    kill(workers["c"], signal.SIGCONT)
    until("the end of the late process", lambda: not any(path.exists() for path in late))
    assert digests(folder / name) == before and not (folder / name / "traceback.txt").exists()
