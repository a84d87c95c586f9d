"""Scores read against music21 itself, and against scores written by hand."""

import os

import music21
from demo_pieces import SHORT

from extra.corpora.demo import score


def test_an_excerpt_has_the_notes_of_the_whole_score():
    path = next(
        p
        for p in music21.corpus.getComposer("mozart")
        if str(p).endswith(SHORT.replace("/", os.sep))
    )
    whole, _ = score.read(path)
    part, _ = score.read(path, quarters=14.0)  # four bars of 4/4
    assert part == [note for note in whole if note.beat < 16.0] and len(part) < len(whole) / 2
    assert score.excerpt(path, 14.0).count("<measure ") == 4  # both staves are in one part
    assert whole[0] == score.ScoreNote(0.0, 2.0, 72, 0, 0, "Half")  # c'' of the sonata's first bar


def test_ties_are_one_note_and_grace_notes_none():
    part = music21.stream.Part()
    for text, tie in (("C4", "start"), ("C4", "stop"), ("D4", None)):
        note = music21.note.Note(text, quarterLength=2.0)
        note.tie = music21.tie.Tie(tie) if tie else None
        part.append(note)
    part.append(music21.note.Note("E4").getGrace())
    notes = list(score.part_notes(part, part.flatten(), 0))
    assert [(n.beat, n.beats, n.pitch) for n in notes] == [(0.0, 4.0, 60), (4.0, 2.0, 62)]
