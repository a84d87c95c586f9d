"""`auto` runs any task: no word of the default task's subject stands in it."""

import re
from pathlib import Path

import pytest

AUTO = Path(__file__).parents[2] / "cplxnet" / "auto"
# the line that names it
NAMED = {"tasks.py": "from cplxnet import musicnet as default_task"}
SUBJECT = re.compile(
    r"\b(notes?|sounds|sounding|audio|midi|music\w*|recordings?|pitch(es)?)\b", re.IGNORECASE
)
# a note in a run's status is a remark
REMARK = re.compile(r"\bnotes?\b")
REMARKS = ("runner/folder.py", "runner/checkpoint.py", "runner/run.py", "runner/trainer.py")
FILES = [path.relative_to(AUTO).as_posix() for path in sorted(AUTO.rglob("*.py"))]


@pytest.mark.parametrize("file", FILES)
def test_no_word_of_music(file):
    text = (AUTO / file).read_text()
    text = text.replace(NAMED.get(file, "\0"), "", 1)
    if file in REMARKS:
        text = REMARK.sub("", text)

    lines = [line.strip() for line in text.splitlines() if SUBJECT.search(line)]
    assert lines == []
