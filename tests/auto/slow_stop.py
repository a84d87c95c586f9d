"""`python slow_stop.py run FOLDER ...`: the command, which on Ctrl-C says so and then stops slowly,
as on a disk that
hangs; for tests of a second Ctrl-C."""

import runpy
import sys
import time

from cplxnet.auto.runner.folder import RunFolder
from cplxnet.auto.sweep import cluster


def slowly(*_):
    print("stopping", flush=True)
    time.sleep(600)


if __name__ == "__main__":
    RunFolder.record = cluster._stop = slowly
    sys.argv[0] = "cplxnet.auto"
    runpy.run_module("cplxnet.auto", run_name="__main__", alter_sys=True)
