"""Runners as processes of their own, forked once all is imported: `python runners.py race|kill
FOLDER DATA THREADS`.

race: two of them on one folder at the same time. kill: one after another, each killed with SIGKILL
at a random moment, until at least 20 were; then one to the end. What they train is logged in
FOLDER/log.txt: a line an epoch.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from cplxnet.auto import run_many
from cplxnet.auto.runner.folder import RunFolder

N_KILLS = 20


def noted(folder: Path) -> None:
    """Log epochs, before their checkpoint is written, and runs done."""
    update = RunFolder.update

    def line(text: str) -> None:
        with (folder / "log.txt").open("a") as file:
            file.write(f"{text} {os.getpid()}\n")

    def noted_update(self, **changes):
        if changes.get("left_s") is not None:  # after an epoch
            line(f"{self.path.name} {changes['stage']} {changes['epoch'] - 1}")
        update(self, **changes)
        if changes.get("state") == "done":
            line(f"{self.path.name} done 0")

    RunFolder.update = noted_update


def start(folder: Path, data: Path) -> int:
    """A runner of the folder; its process number."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            outcomes = run_many(folder, data=data, progress=False, timeout_s=30.0)
            code = 0 if all(outcome.state in ("done", "skipped") for outcome in outcomes) else 3
        finally:
            os._exit(code)
    return process


def race(folder: Path, data: Path) -> list[int]:
    processes = [start(folder, data) for _ in range(2)]
    return [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]


def kill(folder: Path, data: Path) -> list[int]:
    """As many kills as asked for hit before the end: the moments are drawn from less than a run
    takes.
    """
    codes: list[int] = []
    moments = random.Random(2026)
    while codes.count(-signal.SIGKILL) < N_KILLS and 0 not in codes:
        process = start(folder, data)
        time.sleep(moments.uniform(0.02, 0.6))
        os.kill(process, signal.SIGKILL)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
    codes.append(os.waitstatus_to_exitcode(os.waitpid(start(folder, data), 0)[1]))
    return codes


if __name__ == "__main__":
    how, folder, data = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(int(sys.argv[4]))
    noted(folder)
    print(*{"race": race, "kill": kill}[how](folder, data))
