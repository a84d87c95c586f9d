"""Builds in forks of one process, which imports once: to be killed, or to run into a full disk. Run
by the tests.

`python forked.py SOURCE METADATA`, then a line of JSON on stdin for each build, and one of JSON
back: `{"data": folder, "step": k}` kills it before its k-th change of the file system or block
written, `{"data": folder, "seconds": s}` after that time. Back comes {"ended": exit code (-9:
killed), "error": text}.
"""

import json
import os
import signal
import sys
import threading
from typing import Any

_CHANGES = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir"}


def _kill_at(step: int, data: str) -> None:
    left = [step]

    def count() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if (
            event in _CHANGES
            and isinstance(arguments[0], (str, os.PathLike))
            and data in os.fspath(arguments[0])
        ):
            count()

    from extra.corpora.hdf5 import Hdf5

    append = Hdf5.append

    def counted(self, *arguments) -> None:
        append(self, *arguments)
        count()

    Hdf5.append = counted  # type: ignore[method-assign]
    sys.addaudithook(hear)


def _build(source: str, metadata: str, order: dict[str, Any], tell: int) -> None:
    from extra.corpora import archive

    code, text = 0, ""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115, for notices; the process's own stdout is for JSON
    if "step" in order:
        _kill_at(order["step"], order["data"])
    if "seconds" in order:
        threading.Timer(order["seconds"], os.kill, (os.getpid(), signal.SIGKILL)).start()
    try:
        archive.build(source, order["data"], metadata_csv=metadata, n_workers=0)
    except Exception as error:
        code, text = 1, f"{type(error).__name__}: {error}"
    os.write(tell, text.encode())
    os._exit(code)


def main(source: str, metadata: str) -> None:
    from extra.corpora import archive  # noqa: F401, imported before the forks

    print("ready", flush=True)
    for line in sys.stdin:
        hear, tell = os.pipe()
        child = os.fork()
        if child == 0:
            _build(source, metadata, json.loads(line), tell)
        os.close(tell)
        with os.fdopen(hear) as file:
            error = file.read()
        _, status = os.waitpid(child, 0)
        print(json.dumps({"ended": os.waitstatus_to_exitcode(status), "error": error}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
