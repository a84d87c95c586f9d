"""Which scores of music21's corpus make the demo corpus and the reference corpus: `pieces.csv`, a
row a recording.

No work is in two splits. Columns of the table:

- `split`: train, valid or test.
- `corpora`: `demo`, `reference`, or both. The reference corpus has the demo's works at length,
  without the shortest training pieces (a batch has a window of each recording, however long it is),
  and more works.
- `source`: the file, below music21's corpus.
- `composer`, `composition`, `movement`, `ensemble`: texts, written into the corpus.
- `quarter_bpm`: speed in quarter notes a minute, used where the score names none: near the
  composer's metronome marks where there are any, else what is usually played.
- `times`: how often the score is played; 2 where it is short and has a repeat.
"""

import dataclasses
from pathlib import Path

import pandas as pd

from extra.corpora import SPLITS

# The longest that is played of a movement, in seconds. Few recordings, and long ones, make the
# reference corpus: a training batch is one window of every recording.
SECONDS = {
    "demo": {"train": 98.0, "valid": 60.0, "test": 60.0},
    "reference": {"train": 300.0, "valid": 100.0, "test": 100.0},
}
# Recording ids of the splits begin after these thousands.
FIRST_ID = {"demo": 1000, "reference": 4000}


@dataclasses.dataclass(frozen=True)
class Piece:
    """A recording to be made: the first `seconds` of the score `source`, which is played `times`
    times.
    """

    key: str  # "id_1001"
    split: str
    source: str  # below music21/corpus
    composer: str
    composition: str
    movement: str
    ensemble: str
    quarter_bpm: float
    seconds: float
    times: int = 1

    @property
    def name(self) -> str:
        return f"{self.key} ({self.composer}, {self.composition}, {self.movement})"


def read(corpus: str) -> tuple[Piece, ...]:
    """The pieces of the corpus `demo` or `reference`, split by split in the order of the table.

    Ids count from 1001 (train), 2001 (valid), 3001 (test) in the demo corpus, from 4001, 5001 and
    6001 in the reference.
    """
    table = pd.read_csv(Path(__file__).with_name("pieces.csv"), dtype={"quarter_bpm": float})
    chosen = table[table["corpora"].str.split().map(lambda names: corpus in names)]

    pieces = []
    for number, split in enumerate(SPLITS):
        rows = chosen[chosen["split"] == split].drop(columns=["split", "corpora"])
        for index, row in enumerate(rows.to_dict("records"), start=1):
            key = f"id_{FIRST_ID[corpus] + 1000 * number + index}"
            pieces.append(Piece(key=key, split=split, seconds=SECONDS[corpus][split], **row))
    return tuple(pieces)


DEMO = read("demo")
REFERENCE = read("reference")
