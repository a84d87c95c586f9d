"""The table of pieces: enough of them, and no work in two splits."""

from pathlib import Path

import music21

from extra.corpora.demo.pieces import DEMO, REFERENCE, SPLITS, Piece

SCORES = Path(music21.__file__).parent / "corpus"


def test_the_pieces_are_enough_and_no_work_is_in_two_splits():
    count = {split: sum(p.split == split for p in DEMO) for split in SPLITS}
    assert count["train"] >= 28 and 4 <= count["valid"] <= 6 and 4 <= count["test"] <= 6
    assert len({p.source for p in DEMO}) == len({p.key for p in DEMO}) == len(DEMO)
    works = {
        split: {(p.composer, p.composition) for p in DEMO if p.split == split} for split in SPLITS
    }
    assert not (
        works["train"] & works["valid"]
        or works["train"] & works["test"]
        or works["valid"] & works["test"]
    )
    for split in ("valid", "test"):
        assert {"String Quartet", "Solo Piano"} <= {p.ensemble for p in DEMO if p.split == split}
        assert len({p.composer for p in DEMO if p.split == split}) >= 3
    assert all((SCORES / p.source).is_file() for p in DEMO)


def test_the_reference_corpus_shares_no_work_between_splits_and_has_each_demo_split_inside():
    assert len({p.source for p in REFERENCE}) == len({p.key for p in REFERENCE}) == len(REFERENCE)
    assert not {p.key for p in REFERENCE} & {p.key for p in DEMO}
    split_of = {}
    for p in (*DEMO, *REFERENCE):
        assert split_of.setdefault((p.composer, p.composition), p.split) == p.split, p.name
    count = {split: sum(p.split == split for p in REFERENCE) for split in SPLITS}
    assert 30 <= count["train"] <= 48 and count["valid"] >= 5 and count["test"] >= 5
    assert sum(p.seconds for p in REFERENCE if p.split == "train") > 2 * 3600
    assert all((SCORES / p.source).is_file() for p in REFERENCE)


def test_a_row_of_the_table_is_a_piece_of_either_corpus():
    row = (
        "mozart/k545/movement1_exposition.mxl",
        "Mozart",
        "Piano Sonata No. 16 in C major, K. 545",
        "1. Allegro (exposition, repeated)",
        "Solo Piano",
        126.0,
    )

    assert Piece("id_3004", "test", *row, seconds=60.0, times=2) in DEMO
    assert Piece("id_6004", "test", *row, seconds=100.0, times=2) in REFERENCE
    kinds = {type(getattr(DEMO[0], name)) for name in ("quarter_bpm", "seconds", "times")}
    assert kinds == {float, int}  # numpy's own would be written otherwise into the recipe
