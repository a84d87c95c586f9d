"""The command for a GPU.

A part that fails, hangs or leaves processes behind stops no other, and keeps its rows.
"""

import json
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="no Triton")
from extra.benchmarks import gpu

ROWS = "import json, pathlib; pathlib.Path({target!r}).write_text(json.dumps([{{'ms': 1.5}}])); "


def supervised(tmp_path: Path, script: str, limit_s: float = 30):
    target = tmp_path / "part.json"
    command = [sys.executable, "-c", ROWS.format(target=str(target)) + script]
    return gpu.supervised(command, target, limit_s)


def test_a_part_that_ends_well(tmp_path: Path) -> None:
    assert supervised(tmp_path, "pass") == ([{"ms": 1.5}], "")


def test_a_part_that_fails_keeps_its_rows_and_says_why(tmp_path: Path) -> None:
    rows, remark = supervised(tmp_path, "raise RuntimeError('CUDA error: \\udcff'[:12])")
    assert rows == [{"ms": 1.5}]
    assert remark.startswith("exit code 1: ") and "RuntimeError: CUDA error" in remark


def test_a_part_that_hangs_is_cut_off_with_what_it_started(tmp_path: Path) -> None:
    script = "import subprocess, time; subprocess.Popen(['sleep', '60']); time.sleep(60)"
    began = time.monotonic()
    assert supervised(tmp_path, script, 6) == ([{"ms": 1.5}], "cut off after 6 s")
    assert time.monotonic() - began < 30


def test_no_time_left(tmp_path: Path) -> None:
    assert supervised(tmp_path, "", 4) == (None, "no time left")


def test_rows_are_kept_one_by_one(tmp_path: Path) -> None:
    target = tmp_path / "rows.json"

    def rows():
        yield {"ms": 1.0}
        assert json.loads(target.read_text()) == [{"ms": 1.0}]
        raise RuntimeError("lost the device")

    with pytest.raises(RuntimeError, match="lost"):
        gpu.keep_results(rows(), target)
    assert json.loads(target.read_text()) == [{"ms": 1.0}]


def test_what_nobody_has_seen_comes_first_and_all_fits() -> None:
    names = list(gpu.PARTS)
    assert names[:3] == ["resumed", "tests", "steps"] and names[-1] == "peers"
    assert gpu.TOTAL_S <= 7 * 60
    assert sum(part.limit_s for name, part in gpu.PARTS.items() if name != "peers") <= 480


def test_nothing_is_left_in_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(gpu.torch.cuda, "get_device_name", lambda: "none")
    monkeypatch.setattr(gpu, "PARTS", {})
    gpu.main(tmp_path)
    assert list(tmp_path.iterdir()) == []
