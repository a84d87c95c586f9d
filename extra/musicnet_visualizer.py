"""What a corpus holds, for `musicnet_visualizer.ipynb`: recordings, notes, polyphony, a picture."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.signal
from matplotlib.axes import Axes
from matplotlib.ticker import ScalarFormatter

from cplxnet.auto.report import style
from cplxnet.musicnet import recordings
from cplxnet.musicnet.labels import LOWEST_NOTE, N_NOTES, changes_within

_SPECTRUM_WINDOW = 2048  # samples
_SPECTRUM_HOP = 512


def summary(files: Mapping[str, Path]) -> pd.DataFrame:
    """A row a recording: split, key, its texts, seconds, notes.

    Args:
        files: split -> a file of recordings.
    """
    rows = []
    for split, path in files.items():
        rate_hz = recordings.rate_hz(path)
        for item in recordings.recordings(path):
            rows.append(
                {
                    "split": split,
                    "key": item.key,
                    "composer": item.composer,
                    "composition": item.composition,
                    "movement": item.movement,
                    "ensemble": item.ensemble,
                    "seconds": len(item.data) / rate_hz,
                    "notes": len(item.labels),
                }
            )
    return pd.DataFrame(rows)


def notes_per_class(path: Path) -> np.ndarray:
    """Labels of each of the 84 classes in the file at `path`: int64 (84,)."""
    counts = np.zeros(N_NOTES, np.int64)
    for item in recordings.recordings(path):
        counts += np.bincount(item.labels["note"] - LOWEST_NOTE, minlength=N_NOTES)
    return counts


def polyphony(path: Path) -> np.ndarray:
    """Share of the time in which 0, 1, 2, ... classes sound at once: float64, sums to 1."""
    samples = np.zeros(N_NOTES + 1, np.int64)
    for item in recordings.recordings(path):
        end = len(item.data)
        instants, words = changes_within(item.labels, end)
        sounding = np.bitwise_count(words).sum(1, dtype=np.int64)

        # from the start to the first change no class sounds
        lengths = np.diff(np.concatenate([[0], instants, [end]]))
        np.add.at(samples, np.concatenate([[0], sounding]), lengths)
    return np.trim_zeros(samples, "b") / samples.sum()


def spectrogram(
    axes: Axes,
    item: recordings.Recording,
    *,
    rate_hz: int,
    begin_s: float = 0.0,
    seconds: float = 10.0,
) -> None:
    """The spectrum of `item` over time, in dB, each note a line at its pitch.

    Args:
        axes: where to draw.
        item: the recording.
        rate_hz: its sampling rate.
        begin_s, seconds: the part to show.
    """
    first = int(begin_s * rate_hz)
    last = int((begin_s + seconds) * rate_hz)
    signal = item.data[first:last].astype(np.float64)

    size = min(_SPECTRUM_WINDOW, len(signal))
    hz, s, power = scipy.signal.spectrogram(
        signal, rate_hz, nperseg=size, noverlap=max(0, size - _SPECTRUM_HOP)
    )
    decibels = 10 * np.log10(power + 1e-12)
    axes.pcolormesh(begin_s + s, hz, decibels, cmap="Greys", shading="auto", rasterized=True)

    labels = item.labels
    heard = labels[(labels["start_time"] < last) & (labels["end_time"] > first)]
    for label in heard:
        pitch_hz = 440 * 2 ** ((label["note"] - 69) / 12)
        span_s = np.clip([label["start_time"], label["end_time"]], first, last) / rate_hz
        axes.plot(span_s, [pitch_hz, pitch_hz], color=style.COLOURS[1], linewidth=1.5, alpha=0.8)

    axes.set(
        xlabel="time, seconds",
        ylabel="frequency, Hz",
        yscale="log",
        xlim=(begin_s, begin_s + len(signal) / rate_hz),
        ylim=(25, rate_hz / 2),
        title=f"{item.key} {item.composition}",
    )
    axes.yaxis.set_major_formatter(ScalarFormatter())
