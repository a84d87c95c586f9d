"""Networks in files, and the same recording transcribed from every kind of them."""

import shutil
from pathlib import Path

import numpy as np
import pretty_midi
import pytest
import torch
from scipy.io import wavfile

from cplxnet import nn
from cplxnet.auto import __main__ as command
from cplxnet.auto import load_model, models
from cplxnet.musicnet.deployment import load_network
from cplxnet.musicnet.resample import resample
from cplxnet.musicnet.transcription.midi import notes_of
from cplxnet.musicnet.transcription.windows import transcribe

HOP = 256


@pytest.fixture(scope="module")
def wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of three chords, stereo, at 44.1 kHz and 16 bits."""
    path, t = tmp_path_factory.mktemp("wav") / "chords.wav", np.arange(88_200) / 44_100
    tone = sum(0.2 * np.sin(2 * np.pi * f * t) for f in (261.6, 329.6, 392.0)) * (
        np.floor(1.5 * t) != 1
    )
    wavfile.write(path, 44_100, np.stack((tone, tone), 1).__mul__(32_767).astype(np.int16))
    return path


def test_every_form_of_a_network_transcribes_alike(sparse: Path, wav: Path, tmp_path: Path) -> None:
    """What the command writes, against the network in the snapshot on samples resampled by hand."""
    model, _ = load_model(sparse)
    rate_hz, values = wavfile.read(wav)
    samples = resample(values.mean(1) / 32_768, source_hz=rate_hz)
    how = {
        key: value for key, value in models.load_deployed(sparse).heard.items() if key != "rate_hz"
    }
    times, want = transcribe(model, samples, hop=HOP, progress=False, **how)
    threshold = float(np.median(want))
    files = {
        kind: tmp_path / f"net.{kind}.onnx" if "onnx" in kind else tmp_path / f"net.{kind}"
        for kind in models.EXPORTS
    }
    for kind, path in list(files.items())[:-1]:
        models.export(sparse, path, kind=kind)
    files["raw"] = models.export(sparse, tmp_path / "raw.onnx", kind="onnx-compact", raw_audio=True)
    files |= {"folder": sparse, "snapshot": sparse / "2-fine-tune.pt"}
    del files["cplxmodule"]
    for kind, path in files.items():
        out = tmp_path / kind
        arguments = [
            "transcribe",
            wav,
            "--model",
            path,
            "--out",
            out,
            "--hop",
            HOP,
            "--threshold",
            threshold,
        ]
        assert command.main(list(map(str, arguments))) == 0
        table = np.loadtxt(out.with_name(f"{out.name}.csv"), delimiter=",", skiprows=1)
        np.testing.assert_allclose(table[:, 0], times, atol=1e-4)
        np.testing.assert_allclose(table[:, 1:], want, atol=5e-3 if kind.endswith("16") else 2e-4)
    header = (tmp_path / "raw.csv").read_text().splitlines()[0].split(",")
    assert header == ["time_s", *map(str, range(21, 105))]
    found = pretty_midi.PrettyMIDI(str(tmp_path / "folder.mid")).instruments[0].notes
    wanted = notes_of(want >= threshold, times, duration_s=len(samples) / 11_000)
    assert len(found) == len(wanted) > 84
    assert sorted(note.pitch for note in found) == sorted(wanted["note"])
    assert max(note.end for note in found) == pytest.approx(wanted["end_s"].max(), abs=1e-3)


def test_silence_is_a_transcription_without_notes(
    sparse: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wavfile.write(tmp_path / "silent.wav", 44_100, np.zeros(44_100, np.int16))
    assert command.main(["transcribe", str(tmp_path / "silent.wav"), "--model", str(sparse)]) == 0
    shown = capsys.readouterr()
    assert "silent, so without notes" in shown.err and "0 notes" in shown.out
    table = np.loadtxt(tmp_path / "silent.transcribed.csv", delimiter=",", skiprows=1)
    assert table.shape == (11, 85) and not table[:, 1:].any()
    assert not pretty_midi.PrettyMIDI(str(tmp_path / "silent.transcribed.mid")).instruments


def test_files_of_others_are_not_replaced(
    sparse: Path, wav: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Data sets keep a recording's reference beside it, under the recording's name."""

    def transcribe_it(*arguments: str) -> int:
        return command.main(["transcribe", str(recording), "--model", str(sparse), *arguments])

    recording = shutil.copy(wav, tmp_path / "take.1")
    for name in ("take.mid", "take.1.mid", "take.csv"):
        (tmp_path / name).write_bytes(b"a reference")
    for _ in range(2):  # its own files may be replaced
        assert transcribe_it() == 0
    assert {path.name for path in tmp_path.iterdir()} - {"take.mid", "take.1.mid", "take.csv"} == {
        "take.1",
        "take.1.transcribed.csv",
        "take.1.transcribed.mid",
    }
    for name in ("take.mid", "take.1.mid", "take.csv"):
        assert (tmp_path / name).read_bytes() == b"a reference"

    capsys.readouterr()
    assert transcribe_it("--out", str(tmp_path / "take")) == 2
    assert "take.csv: expected no file, or an earlier transcription" in capsys.readouterr().err
    assert (tmp_path / "take.mid").read_bytes() == b"a reference"
    assert transcribe_it("--out", str(tmp_path / "take"), "--overwrite") == 0
    assert (tmp_path / "take.mid").read_bytes()[:4] == b"MThd"


def test_names_of_others_reach_no_terminal(
    sparse: Path, wav: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = shutil.copy(wav, tmp_path / "a\x1b]0;title\x07.wav")
    assert command.main(["transcribe", str(recording), "--model", str(sparse)]) == 0
    shown = "".join(capsys.readouterr())
    assert "\x1b" not in shown and shown.count("a\\u001b]0;title\\u0007") == 3  # a notice too


FAULTS = {
    "no wav": (["none.wav"], "none.wav"),
    "no model": (
        ["chords.wav", "--model", "none.onnx"],
        "none.onnx: expected a run's folder, a snapshot",
    ),
    "not a model": (["chords.wav", "--model", "chords.wav"], "chords.wav"),
    "threshold": (["chords.wav", "--threshold", "0"], "expected a threshold of probability in"),
    "hop": (["chords.wav", "--hop", "0"], "expected hop >= 1, got 0"),
    "stage": (
        ["chords.wav", "--stage", "dance"],
        "expected a stage of dense, sparsify, fine-tune, got 'dance'",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_told_in_a_line(
    sparse: Path,
    wav: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(wav.parent)
    arguments, told = FAULTS[name]
    arguments = arguments if "--model" in arguments else [*arguments, "--model", str(sparse)]
    assert command.main(["transcribe", *arguments]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and told in shown and "Traceback" not in shown


def test_weights_in_the_layout_of_cplxmodule(sparse: Path, tmp_path: Path) -> None:
    path = models.export(sparse, tmp_path / "weights.pt", kind="cplxmodule")
    state = torch.load(path, weights_only=True)
    model, _ = load_model(sparse)
    torch.testing.assert_close(
        torch.complex(state["fc1.weight.real"], state["fc1.weight.imag"]), model.fc1.weight.detach()
    )
    assert state["fc1.mask"].dtype == torch.float32 and "fc1.weight_ri" not in state


def test_a_compact_file_that_does_not_say_what_it_hears(sparse: Path, tmp_path: Path) -> None:
    nn.save_compact(nn.compact(load_model(sparse)[0], measure=False), tmp_path / "bare.safetensors")
    with pytest.raises(ValueError, match=r"bare\.safetensors: expected what the network hears"):
        models.load_deployed(tmp_path / "bare.safetensors")


def test_the_commands_know_every_kind(
    sparse: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["export", str(sparse), str(tmp_path / "net.onnx"), "--as", "onnx"]) == 0
    assert "net.onnx" in capsys.readouterr().out
    with pytest.raises(ValueError, match="raw_audio with ONNX only, got 'compact'"):
        models.export(sparse, tmp_path / "x", kind="compact", raw_audio=True)


def test_bits_by_the_command(
    sparse: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As many as the posterior asks for, or a number; a stage that has none, and other words."""

    def exported(*words: str) -> int:
        return command.main(["export", str(sparse), str(tmp_path / "net"), *words])

    sizes = {}
    for bits in ("auto", "8", "3"):
        assert exported("--bits", bits) == 0
        sizes[bits] = (tmp_path / "net").stat().st_size
        assert f"{sizes[bits]:,} bytes" in capsys.readouterr().out
        assert models.load_deployed(tmp_path / "net").heard == models.load_deployed(sparse).heard
    assert sizes["3"] < sizes["8"]
    assert exported("--bits", "auto", "--stage", "sparsify") == 0

    assert exported("--bits", "auto", "--stage", "dense") == 2
    assert "expected a variational stage for bits auto, got none" in capsys.readouterr().err
    assert exported("--bits", "5", "--as", "compact-float16") == 2
    assert "expected bits with compact only" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        exported("--bits", "few")
    assert "invalid number_or_auto value: 'few'" in capsys.readouterr().err


@pytest.mark.parametrize("heard", ["[" * 100_000, "{", "null", "{}"])
def test_what_a_network_hears_is_not_trusted(tmp_path: Path, heard: str) -> None:
    network = nn.compact(torch.nn.Linear(4, 84), measure=False)
    nn.save_compact(network, tmp_path / "net.safetensors", metadata={"cplxnet": heard})
    with pytest.raises(ValueError, match=r"net\.safetensors: expected what the network hears"):
        load_network(tmp_path / "net.safetensors")
