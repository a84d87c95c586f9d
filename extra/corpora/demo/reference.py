"""The reference corpus: the demo's works played at length, and more of them; over two hours of training music.

The same code makes it as the demo corpus (`corpus.build`), from other pieces; ids start at 4001 (train), 5001 (valid)
and 6001 (test). A training batch is one window of every recording, so there are few recordings, and long ones. This
file lists pieces only: it is no part of the demo corpus's recipe, which stays the same bytes.
"""

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

from cplxnet.musicnet import recordings

from . import corpus, pieces
from .pieces import QUARTET, SPLITS, Piece

SECONDS = {"train": 300.0, "valid": 100.0, "test": 100.0}  # played of a movement at most
_TOO_SHORT = {  # of the demo's training pieces: a batch has a window of each recording, however long
    "beethoven/opus18no1/movement3.mxl",
    "beethoven/opus59no3/movement3.mxl",
    "mozart/k155/movement3.mxl",
    "mozart/k458/movement2.mxl",
    "haydn/opus74no1/movement3.mxl",
    "schumann_robert/opus41no1/movement2.mxl",
    "schumann_clara/polonaise_op1n2.mxl",
}
_BEETHOVEN, _MOZART, _HAYDN, _SCHUMANN = "Beethoven", "Mozart", "Haydn", "Robert Schumann"
_MORE = {
    # split: ((file, composer, composition, movement, quarter notes a minute), ...), all of them string quartets
    "train": (
        (
            "beethoven/opus18no3.mxl",
            _BEETHOVEN,
            "String Quartet in D major, Op. 18 No. 3",
            "1. Allegro",
            240,
        ),
        (
            "beethoven/opus18no5.mxl",
            _BEETHOVEN,
            "String Quartet in A major, Op. 18 No. 5",
            "1. Allegro",
            156,
        ),
        (
            "beethoven/opus59no1/movement3.mxl",
            _BEETHOVEN,
            "String Quartet in F major, Op. 59 No. 1",
            "3. Adagio molto e mesto",
            44,
        ),
        (
            "beethoven/opus59no3/movement2.mxl",
            _BEETHOVEN,
            "String Quartet in C major, Op. 59 No. 3",
            "2. Andante con moto quasi allegretto",
            70,
        ),
        (
            "beethoven/opus59no3/movement4.mxl",
            _BEETHOVEN,
            "String Quartet in C major, Op. 59 No. 3",
            "4. Allegro molto",
            320,
        ),
        (
            "beethoven/opus74.mxl",
            _BEETHOVEN,
            "String Quartet in E-flat major, Op. 74",
            "1. Poco adagio - Allegro",
            84,
        ),
        (
            "beethoven/opus132.mxl",
            _BEETHOVEN,
            "String Quartet in A minor, Op. 132",
            "1. Assai sostenuto - Allegro",
            100,
        ),
        (
            "schumann_robert/opus41no1/movement1.mxl",
            _SCHUMANN,
            "String Quartet in A minor, Op. 41 No. 1",
            "1. Introduzione: Andante espressivo - Allegro",
            100,
        ),
        (
            "schumann_robert/opus41no1/movement5.mxl",
            _SCHUMANN,
            "String Quartet in A minor, Op. 41 No. 1",
            "4. Presto",
            260,
        ),
    ),
    "valid": (
        (
            "mozart/k156/movement3.mxl",
            _MOZART,
            "String Quartet No. 3 in G major, K. 156",
            "3. Tempo di Menuetto",
            120,
        ),
        (
            "beethoven/opus59no2/movement1.mxl",
            _BEETHOVEN,
            "String Quartet in E minor, Op. 59 No. 2",
            "1. Allegro",
            126,
        ),
    ),
    "test": (
        (
            "mozart/k80/movement1.mxl",
            _MOZART,
            "String Quartet No. 1 in G major, K. 80",
            "1. Adagio",
            50,
        ),
        (
            "mozart/k80/movement4.mxl",
            _MOZART,
            "String Quartet No. 1 in G major, K. 80",
            "4. Rondeau: Allegro",
            160,
        ),
        (
            "haydn/opus1no1/movement2.mxl",
            _HAYDN,
            "String Quartet in B-flat major, Op. 1 No. 1",
            "2. Menuet",
            120,
        ),
        (
            "haydn/opus1no1/movement5.mxl",
            _HAYDN,
            "String Quartet in B-flat major, Op. 1 No. 1",
            "5. Presto",
            150,
        ),
    ),
}


def _rows(split: str) -> Iterator[tuple[str, str, str, str, str, float, int]]:
    """Source, texts, tempo and times played of each piece: the demo's without its shortest, then more."""
    for p in pieces.PIECES:
        if p.split == split and p.source not in _TOO_SHORT:
            yield (
                p.source,
                p.composer,
                p.composition,
                p.movement,
                p.ensemble,
                p.quarter_bpm,
                p.times,
            )
    for source, composer, composition, movement, bpm in _MORE[split]:
        yield source, composer, composition, movement, QUARTET, float(bpm), 1


def _pieces() -> Iterator[Piece]:
    for number, split in enumerate(SPLITS, start=4):
        for index, (source, *texts, bpm, times) in enumerate(_rows(split), start=1):
            composer, composition, movement, ensemble = map(str, texts)
            key, seconds = f"id_{1000 * number + index}", SECONDS[split]
            yield Piece(
                key, split, source, composer, composition, movement, ensemble, bpm, seconds, times
            )


PIECES = tuple(_pieces())


def _built(target: Path, recipe: str) -> bool:
    """Whether the three files are in `target`, made by this recipe."""
    try:
        found = [recordings.attributes(target / corpus.file_11khz(split)) for split in SPLITS]
    except (FileNotFoundError, recordings.RecordingError):
        return False
    return all(attributes.get("recipe") == recipe for attributes in found)


def build(
    data: str | Path = "data",
    *,
    pieces: tuple[Piece, ...] = PIECES,
    force: bool = False,
    maker: corpus.Maker = corpus.make,
    timeout_s: float = 600.0,
) -> Path:
    """Build the reference corpus under `data`/reference, unless it is there already; returns that folder.

    Writes `musicnet_11khz_{train,valid,test}.h5`, the same bytes each time, whole or not at all: runs are compared on
    it. `pieces` and `maker` as in `corpus.build`; `timeout_s`: for one piece, in seconds.

    Raises
    ------
    corpus.IncompleteCorpusWarning, RuntimeError: some piece could not be made; nothing is written.
    """
    target, recipe = Path(data) / "reference", corpus.fingerprint(pieces)
    if not force and _built(target, recipe):
        return target
    Path(data).mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".reference-", dir=data))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", corpus.IncompleteCorpusWarning)
            made = corpus.build(staging, pieces=pieces, maker=maker, timeout_s=timeout_s)
        target.mkdir(exist_ok=True)
        for split in SPLITS:
            os.replace(made / corpus.file_11khz(split), target / corpus.file_11khz(split))
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target
