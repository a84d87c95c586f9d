"""`auto` runs any task: no word of the default task's subject stands in it."""

import re
from pathlib import Path

import pytest

AUTO = Path(__file__).parents[2] / "cplxnet" / "auto"
REGISTERS = "from cplxnet import musicnet as default_task"  # the one line that names it
SUBJECT = re.compile(
    r"\b(notes?|sounds|sounding|audio|midi|music\w*|recordings?|pitch(es)?)\b", re.IGNORECASE
)
# a note in a run's status is a remark
REMARK = re.compile(r"\bnotes?\b")
REMARKS = ("runner/folder.py", "runner/checkpoint.py", "runner/reuse.py")

# these still name music; what is rid of it goes from this list
OTHERS = {
    "__main__.py",
    "models.py",
    "report/curves.py",
    "report/text.py",
    "runner/components.py",
    "runner/run.py",
    "train/loop.py",
    "train/state.py",
}
FILES = [path.relative_to(AUTO).as_posix() for path in sorted(AUTO.rglob("*.py"))]


@pytest.mark.parametrize("file", FILES)
def test_no_word_of_music(file):
    text = (AUTO / file).read_text()
    if file == "tasks.py":
        assert text.count(REGISTERS) == 1
        text = text.replace(REGISTERS, "")
    if file in REMARKS:
        text = REMARK.sub("", text)

    lines = [line.strip() for line in text.splitlines() if SUBJECT.search(line)]
    if file in OTHERS:
        pytest.skip(f"{len(lines)} lines with words of music")
    assert lines == []
