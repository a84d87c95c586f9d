import os
import signal
import time

import music21
import numpy as np
import pytest
import symusic.core

from cplxnet.musicnet import recordings
from extra.corpora.demo import (
    IncompleteCorpusWarning,
    __main__,
    corpus,
    excerpt,
    performance,
    reference,
    render,
    soundfont,
    workers,
)
from extra.corpora.demo.pieces import PIECES, SPLITS, Piece

SHORT = "mozart/k545/movement1_exposition.mxl"


def piece(key="id_1001", split="train", source=SHORT, seconds=5.0, **more):
    return Piece(
        key, split, source, "Mozart", "K. 545", "1. Allegro", "Solo Piano", 126.0, seconds, **more
    )


THREE = (
    piece("id_1001", "train"),
    piece("id_2001", "valid", seconds=4.0),
    piece("id_3001", "test", seconds=3.0),
)


@pytest.fixture(scope="module")
def font(tmp_path_factory):
    path = tmp_path_factory.mktemp("font") / "in-tune.sf2"
    path.write_bytes(soundfont.in_tune(soundfont.path().read_bytes()))
    return path


def scale(program, pitches, step=0.6, cents=0.0):
    start = np.arange(len(pitches)) * step
    written = [
        performance.ScoreNote(float(k), 0.8, int(p), program, 0, "Quarter")
        for k, p in enumerate(pitches)
    ]
    return performance.Performance(
        start_s=start,
        end_s=start + 0.8 * step,
        pitch=np.array(pitches),
        program=np.full(len(pitches), program),
        level_db=np.zeros(len(pitches)),
        written=written,
        cents=cents,
        seconds=float(start[-1] + 0.8 * step),
        dropped=0,
    )


def peak_hz(samples, rate_hz, near_hz):
    size = 1 << 19
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), size))
    hz = np.fft.rfftfreq(size, 1 / rate_hz)
    band = (hz > near_hz * 0.8) & (hz < near_hz * 1.25)  # four semitones either way
    return hz[band][np.argmax(spectrum[band])]


@pytest.mark.parametrize(
    ("program", "pitches"), [(0, range(45, 102, 5)), (40, range(55, 89, 3)), (42, range(36, 77, 4))]
)
@pytest.mark.parametrize("cents", [-12.0, 12.0])
def test_each_note_of_a_scale_sounds_where_and_as_its_label_says(font, program, pitches, cents):
    generator = np.random.default_rng(0)
    recording = render.record(
        scale(program, list(pitches), cents=cents), piece=piece(), font=font, generator=generator
    )
    rate_hz = 44_100
    for label in recording.labels:
        start, end, note = (int(label[name]) for name in ("start_time", "end_time", "note"))
        want_hz = 440.0 * 2 ** ((note - 69) / 12)
        got_hz = peak_hz(recording.data[start + 1000 : end], rate_hz, want_hz)
        assert abs(1200 * np.log2(got_hz / want_hz) - cents) < 30, (
            note
        )  # the renderer rounds short loops
        level = np.abs(recording.data[start - 4410 : end])
        onset = int(np.argmax(level > 0.1 * level.max())) - 4410
        assert -50 < onset < 0.02 * rate_hz, note
        after = recording.data[end + 441 : end + 3000]
        assert np.abs(after).max() < 0.1 * level.max(), note


def test_the_sound_font_as_shipped_is_out_of_tune(font):
    """The reason for soundfont.in_tune; once this fails the renderer knows overridingRootKey."""
    score = symusic.core.ScoreSecond(480)
    score.tracks.append(symusic.core.TrackSecond("", 0, False))
    score.tracks[0].notes.append(symusic.core.NoteSecond(0.1, 1.0, 57, 100))
    heard = {}
    for path in (soundfont.path(), font):
        sound = np.asarray(symusic.core.Synthesizer(str(path), 44_100, 0).render(score, False))[0][
            8820:44_100
        ]
        spectrum = np.abs(np.fft.rfft(sound, 1 << 19))
        heard[path] = np.fft.rfftfreq(1 << 19, 1 / 44_100)[np.argmax(spectrum)]
    assert heard[font] == pytest.approx(220.0, rel=0.01) and heard[soundfont.path()] > 2 * 220.0


def test_an_excerpt_has_the_notes_of_the_whole_score():
    path = next(
        p
        for p in music21.corpus.getComposer("mozart")
        if str(p).endswith(SHORT.replace("/", os.sep))
    )
    whole, _ = performance.read(path)
    part, _ = performance.read(path, quarters=14.0)  # four bars of 4/4
    assert part == [note for note in whole if note.beat < 16.0] and len(part) < len(whole) / 2
    assert excerpt.musicxml(path, 14.0).count("<measure ") == 4  # both staves are in one part
    assert whole[0] == performance.ScoreNote(
        0.0, 2.0, 72, 0, 0, "Half"
    )  # c'' of the sonata's first bar


def test_ties_are_one_note_and_grace_notes_none():
    part = music21.stream.Part()
    for text, tie in (("C4", "start"), ("C4", "stop"), ("D4", None)):
        note = music21.note.Note(text, quarterLength=2.0)
        note.tie = music21.tie.Tie(tie) if tie else None
        part.append(note)
    part.append(music21.note.Note("E4").getGrace())
    notes = list(performance._part_notes(part, part.flatten(), 0))
    assert [(n.beat, n.beats, n.pitch) for n in notes] == [(0.0, 4.0, 60), (4.0, 2.0, 62)]


def test_notes_outside_the_classes_are_dropped_and_counted_and_ends_clipped():
    written = [
        performance.ScoreNote(float(k), 30.0, p, 0, 0, "Whole")
        for k, p in enumerate((20, 21, 104, 105, 108))
    ]
    played = performance.perform(written, [], piece=piece(), generator=np.random.default_rng(0))
    assert sorted(played.pitch.tolist()) == [21, 104] and played.dropped == 3
    assert played.end_s.max() == 5.0
    with pytest.raises(ValueError, match=r"id_1001.*expected notes in 21\.\.104, got none"):
        performance.perform(written[:1], [], piece=piece(), generator=np.random.default_rng(0))


def test_tempo_comes_from_the_score_where_it_has_one():
    written = [performance.ScoreNote(float(k), 1.0, 60, 0, 0, "Quarter") for k in range(64)]
    for marks, bpm in (([], 126.0), ([(0.0, 240.0)], 240.0)):
        played = performance.perform(
            written, marks, piece=piece(seconds=60.0), generator=np.random.default_rng(1)
        )
        assert 60.0 * 63 / (played.start_s[-1] - played.start_s[0]) == pytest.approx(bpm, rel=0.07)


def test_the_corpus_is_built_twice_alike_and_then_found_built(tmp_path):
    folders = [corpus.build(tmp_path / name, pieces=THREE) for name in ("a", "b")]
    names = sorted(p.name for p in folders[0].iterdir())
    assert names == ["musicnet.h5", *(f"musicnet_11khz_{split}.h5" for split in sorted(SPLITS))]
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name
    stamp = (folders[0] / "musicnet.h5").stat().st_mtime_ns
    corpus.build(tmp_path / "a", pieces=THREE, maker=fails)  # would fail, were it called
    assert (folders[0] / "musicnet.h5").stat().st_mtime_ns == stamp
    full = {r.key: r for r in recordings.recordings(folders[0] / "musicnet.h5")}
    for split, key in zip(SPLITS, ("id_1001", "id_2001", "id_3001"), strict=True):
        (low,) = recordings.recordings(folders[0] / f"musicnet_11khz_{split}.h5")
        assert (
            low.key == key
            and recordings.rate_hz(folders[0] / f"musicnet_11khz_{split}.h5") == 11_000
        )
        assert abs(len(low) - len(full[key]) * 11_000 / 44_100) <= 1
        assert low.labels["start_time"].tolist() == [
            t * 110 // 441 for t in full[key].labels["start_time"].tolist()
        ]
        assert (low.labels["end_time"] <= len(low)).all() and set(low.labels["instrument"]) == {1}


def fails(piece, font, result):
    raise ValueError("no such instrument")


def misbehaves(piece, font, result):
    """A renderer that hangs, raises or kills itself on some pieces and makes the others."""
    if piece.key == "id_1002":
        time.sleep(60)
    if piece.key == "id_1003":
        raise ValueError("no such instrument")
    if piece.key == "id_1004":
        os.kill(os.getpid(), signal.SIGKILL)
    if piece.key != "id_1005":  # which ends well and leaves nothing
        data, labels = np.zeros(900, np.float32), np.zeros(0, recordings.LABELS)
        np.savez(result, full=data, full_labels=labels, low=data, low_labels=labels, dropped=2)


def test_a_renderer_that_hangs_or_crashes_costs_that_piece_only(tmp_path, capsys):
    bad = tuple(piece(f"id_100{k}") for k in (2, 3, 4, 5))
    began = time.monotonic()
    with pytest.warns(IncompleteCorpusWarning) as caught:
        folder = corpus.build(
            tmp_path, pieces=THREE[:1] + bad + THREE[1:], maker=misbehaves, timeout_s=8.0
        )
    assert time.monotonic() - began < 40
    text = str(caught[0].message)
    for key, why in (
        ("id_1002", "did not end within 8 s"),
        ("id_1003", "ValueError: no such instrument"),
        ("id_1004", "process ended with code -9"),
        ("id_1005", "left no result"),
    ):
        assert any(key in line and why in line for line in text.splitlines()), (key, text)
    assert [r.key for r in recordings.recordings(folder / "musicnet.h5")] == [
        "id_1001",
        "id_2001",
        "id_3001",
    ]
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]
    assert "id_1001" in capsys.readouterr().out  # whose two notes outside the classes are named
    with pytest.warns(
        IncompleteCorpusWarning, match="--force"
    ):  # still named when nothing is left to do
        corpus.build(tmp_path, pieces=THREE[:1] + bad + THREE[1:], maker=fails)


def test_a_split_without_any_piece_is_an_error(tmp_path):
    with pytest.raises(
        RuntimeError, match=r"got none in train, valid, test: id_1001 .*no such instrument"
    ):
        corpus.build(tmp_path, pieces=THREE, maker=fails)
    assert list((tmp_path / "demo").iterdir()) == []


def test_jobs_report_as_they_end(tmp_path):
    outcomes = dict(workers.run(time.sleep, [(0.0,), (-1.0,)], folder=tmp_path, timeout_s=30.0))
    assert outcomes[0] is None and outcomes[1].startswith("ValueError")


def test_the_pieces_are_enough_and_no_work_is_in_two_splits():
    count = {split: sum(p.split == split for p in PIECES) for split in SPLITS}
    assert count["train"] >= 28 and 4 <= count["valid"] <= 6 and 4 <= count["test"] <= 6
    assert len({p.source for p in PIECES}) == len({p.key for p in PIECES}) == len(PIECES)
    works = {
        split: {(p.composer, p.composition) for p in PIECES if p.split == split} for split in SPLITS
    }
    assert not (
        works["train"] & works["valid"]
        or works["train"] & works["test"]
        or works["valid"] & works["test"]
    )
    for split in ("valid", "test"):
        assert {"String Quartet", "Solo Piano"} <= {p.ensemble for p in PIECES if p.split == split}
        assert len({p.composer for p in PIECES if p.split == split}) >= 3
    corpus = os.path.join(os.path.dirname(music21.__file__), "corpus")
    assert all(os.path.isfile(os.path.join(corpus, p.source)) for p in PIECES)


def test_the_demo_corpus_is_made_by_the_recipe_it_always_had():
    """Whoever has it built does not build it again: the reference corpus is no part of the recipe."""
    assert "reference.py" not in corpus._RECIPE and "__main__.py" not in corpus._RECIPE
    assert (
        corpus.fingerprint() == corpus.fingerprint(PIECES) != corpus.fingerprint(reference.PIECES)
    )


def test_the_reference_corpus_shares_no_work_between_splits_and_has_each_demo_split_inside():
    assert (
        len({p.source for p in reference.PIECES})
        == len({p.key for p in reference.PIECES})
        == len(reference.PIECES)
    )
    assert not {p.key for p in reference.PIECES} & {p.key for p in PIECES}
    split_of = {}
    for p in (*PIECES, *reference.PIECES):
        assert split_of.setdefault((p.composer, p.composition), p.split) == p.split, p.name
    count = {split: sum(p.split == split for p in reference.PIECES) for split in SPLITS}
    assert 30 <= count["train"] <= 48 and count["valid"] >= 5 and count["test"] >= 5
    assert sum(p.seconds for p in reference.PIECES if p.split == "train") > 2 * 3600
    folder = os.path.join(os.path.dirname(music21.__file__), "corpus")
    assert all(os.path.isfile(os.path.join(folder, p.source)) for p in reference.PIECES)


def silence(piece, font, result):
    data, labels = np.full(900, float(piece.key[-1]), np.float32), np.zeros(0, recordings.LABELS)
    np.savez(result, full=data, full_labels=labels, low=data, low_labels=labels, dropped=0)


def test_the_reference_corpus_is_whole_or_not_there(tmp_path, monkeypatch, capsys):
    with pytest.raises(IncompleteCorpusWarning, match=r"id_1003.*no such instrument"):
        reference.build(tmp_path, pieces=(*THREE, piece("id_1003")), maker=misbehaves)
    assert list(tmp_path.iterdir()) == []
    folder = reference.build(tmp_path, pieces=THREE, maker=silence)
    names = [f"musicnet_11khz_{split}.h5" for split in SPLITS]
    assert folder == tmp_path / "reference" and sorted(p.name for p in folder.iterdir()) == sorted(
        names
    )
    assert [path.name for path in tmp_path.iterdir()] == ["reference"]
    before = [(folder / name).read_bytes() for name in names]
    assert (
        reference.build(tmp_path, pieces=THREE, maker=fails) == folder
    )  # found built: the maker is not asked
    reference.build(tmp_path, pieces=THREE, maker=silence, force=True)
    assert [(folder / name).read_bytes() for name in names] == before
    (recording,) = recordings.recordings(folder / names[0])
    assert recording.key == "id_1001" and recording.data[0] == 1.0

    monkeypatch.setitem(__main__.SIZES, "reference", lambda data, force: folder)
    capsys.readouterr()
    assert __main__.main(["--size", "reference", "--data", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "musicnet_11khz_test.h5: 1 recordings" in printed and "44.1 kHz" not in printed
