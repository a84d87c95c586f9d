"""What a network writes down of part of a recording, to see and hear in a page: HTML."""

import base64
import html
import io
import itertools
import math
from pathlib import Path

import numpy as np
import soundfile
from matplotlib import pyplot

from cplxnet.musicnet import recordings
from cplxnet.musicnet.resample import resample
from cplxnet.musicnet.transcription.midi import midi, notes_of
from cplxnet.musicnet.transcription.windows import Network, transcribe

from .metrics import true_roll
from .picture import beside

RATE_HZ = 16_000  # of what is played; a rate that MP3 has
BEGIN_S = 20.0  # where a piece has begun in earnest


def example(
    model: Network | None,
    path: str | Path,
    *,
    number: int = 0,
    begin_s: float | None = None,
    seconds: float = 10.0,
    hop: int = 512,
    least: float = 0.5,
    window: int = 4096,
    **heard: object,
) -> str:
    """A transcription as a player of plain tones, under its piano roll beside the truth.

    Args:
        model: features -> logits; None: the truth alone, and the recording.
        path: an HDF5 file of recordings.
        number: of the recording in the file.
        begin_s: where the part begins; None: 20 s, in a recording that is too short for it 0.
        seconds: its length.
        hop: samples from one frame to the next.
        least: probability from which on a note is written down.
        window: samples that the network hears at a time.
        heard: `kind`, `cplx` and `shift` of `transcribe`.

    Raises:
        ValueError: no such recording, a part beyond its end, or one that is no stretch of time.
    """
    if not (0 <= (begin_s or 0) < math.inf and 0 < seconds < math.inf):
        raise ValueError(
            f"expected begin_s >= 0 and seconds > 0, got {begin_s} and {seconds}; "
            "try begin_s=0, seconds=10"
        )
    one = itertools.islice(recordings.recordings(path), max(number, 0), None)
    recording = next(one, None)
    if number < 0 or recording is None:
        n = len(recordings.lengths(path))
        raise ValueError(f"{path}: expected a recording of 0 to {n - 1}, got {number}")

    rate_hz = recordings.rate_hz(path)
    truth = true_roll(recording, hop)
    if begin_s is None:
        begin_s = BEGIN_S if (BEGIN_S + seconds) * rate_hz <= len(recording) else 0.0
    first = int(begin_s * rate_hz) // hop
    last = min(first + max(1, int(seconds * rate_hz) // hop), len(truth))
    if first >= last:
        raise ValueError(
            f"expected a part of {recording.key}, {len(truth) * hop / rate_hz:.0f} s long, got one "
            f"from {begin_s} s on; try begin_s=0"
        )

    title = " ".join(filter(None, (recording.composer, recording.composition, recording.key)))
    roll = truth[first:last]
    if model is None:
        sound = recording.data[first * hop : last * hop]
        players = _player("recording", sound, rate_hz) + _tones("labels", roll, hop / rate_hz)
        return f"<p>{html.escape(title)}, from {begin_s:g} s on</p>{players}"

    # silence is put before and after what is transcribed: hand over a window more on either side
    before = min(first, window // hop + 1)
    samples = recording.data[(first - before) * hop : last * hop + window]
    options: dict = {"rate_hz": rate_hz, "hop": hop, "window": window, "progress": False, **heard}
    _, probabilities = transcribe(model, samples, **options)
    written = probabilities[before:][: len(roll)] >= least
    return _picture(roll, written, first, hop / rate_hz) + _tones("network", written, hop / rate_hz)


def _tones(name: str, roll: np.ndarray, hop_s: float) -> str:
    notes = notes_of(roll, hop_s * np.arange(len(roll)), least_s=0.05)
    if not len(notes):
        return f"<p>{name}: no note</p>"
    return _player(name, midi(notes).synthesize(fs=RATE_HZ), RATE_HZ)


def _player(name: str, samples: np.ndarray, rate_hz: int) -> str:
    loudest = np.abs(samples).max(initial=1e-9)
    file = io.BytesIO()
    sound = resample(0.7 / loudest * samples, source_hz=rate_hz, target_hz=RATE_HZ)
    soundfile.write(file, sound, RATE_HZ, format="MP3")
    source = f"data:audio/mpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
    autoplay = " autoplay" if name == "network" else ""
    return f'<p>{name}<br><audio controls{autoplay} src="{source}"></audio></p>'


def _picture(truth: np.ndarray, written: np.ndarray, first: int, hop_s: float) -> str:
    times = hop_s * np.arange(first, first + len(truth))
    shown = {"": written}
    figure = beside(times, truth, shown, begin_s=times[0], seconds=hop_s * len(times))
    figure.set_size_inches(5, 2.6)  # of a page, beside the points: its words stay readable
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    pyplot.close(figure)
    return (
        '<img style="width:100%" src="data:image/png;base64,'
        f'{base64.b64encode(file.getvalue()).decode()}">'
    )
