"""What is heard against what the labels say, by the spectrum."""

import numpy as np
import pytest
import symusic.core
from demo_pieces import piece

from extra.corpora.demo import performance, render, soundfont
from extra.corpora.demo.score import ScoreNote


@pytest.fixture(scope="module")
def font(tmp_path_factory):
    path = tmp_path_factory.mktemp("font") / "in-tune.sf2"
    path.write_bytes(soundfont.in_tune(soundfont.path().read_bytes()))
    return path


def scale(program, pitches, step=0.6, cents=0.0):
    start = np.arange(len(pitches)) * step
    written = [
        ScoreNote(float(k), 0.8, int(p), program, 0, "Quarter") for k, p in enumerate(pitches)
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


def test_beats_are_a_place_and_a_length_as_in_musicnet():
    labels = render.labels(scale(0, [60, 62, 64]))
    assert labels["start_beat"].tolist() == [0.0, 1.0, 2.0]
    assert labels["end_beat"].tolist() == [0.8, 0.8, 0.8]  # of 1727.csv: 4.0, 1.5, Dotted Quarter
