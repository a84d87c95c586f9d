"""Build the demo corpus and the reference corpus: every piece in a process of its own, then the
HDF5 files.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from cplxnet.files import move
from cplxnet.musicnet import recordings, resample
from cplxnet.musicnet.recordings import Recording
from cplxnet.musicnet.resample import SOURCE_HZ, TARGET_HZ
from cplxnet.progress import bar, show
from extra import corpora
from extra.corpora import FULL, SPLITS, downsample, file_11khz, hdf5, jobs

from . import soundfont
from .pieces import DEMO, REFERENCE, Piece

SEED = 20170318
_CODE = ("score.py", "performance.py", "render.py", "soundfont.py", "build.py")
_PRELOAD = ("music21", "extra.corpora.demo.build", "extra.corpora.demo.render")
# Writes a piece's recording, made with a sound font, to an .npz file: see `make`.
Maker = Callable[[Piece, Path, Path], None]


class IncompleteCorpusWarning(UserWarning):
    """Some pieces of the demo corpus could not be made; the text names them."""


def build(
    data: str | Path = "data",
    *,
    pieces: Sequence[Piece] = DEMO,
    force: bool = False,
    maker: Maker | None = None,
    timeout_s: float = 60.0,
    n_workers: int = 2,
) -> Path:
    """Build the demo corpus under `data`/demo, unless it is there already; returns that folder.

    Writes `musicnet.h5` (44.1 kHz) and `musicnet_11khz_{train,valid,test}.h5`, the same bytes each
    time. A piece whose process fails, is killed or takes too long is left out and named in a
    warning.

    Args:
        data: the folder to build in.
        pieces: what to record.
        force: build again what is built.
        maker: makes a piece's recording, `make` if None; tests give their own.
        timeout_s: for one piece, in seconds.
        n_workers: processes; 0: in this one.

    Raises:
        RuntimeError: no piece of a split could be made, or, with `force`, some piece could not that
            the corpus there has. What is there is left as it is.
    """
    target = Path(data) / "demo"
    recipe = fingerprint(pieces)
    there = _attributes(target, (*map(file_11khz, SPLITS), FULL), recipe)
    missing_there = None if there is None else json.loads(str(there["missing"]))
    if missing_there is not None and not force:
        jobs.remove_left(target / ".build")
        _warn(missing_there, "--force tries them again")
        return target

    with _emptied(target / ".build") as folder:
        ready, missing = _make_all(pieces, maker or make, folder, timeout_s, n_workers)
        empty = [split for split in SPLITS if not any(piece.split == split for piece in ready)]
        if empty:
            raise RuntimeError(
                f"expected pieces in every split, got none in {', '.join(empty)}: "
                f"{'; '.join(missing)}"
            )
        if missing_there is not None:
            _refuse_losses(target, pieces, missing, missing_there)

        notices = list(_out_of_range(ready, folder))
        _write_all(ready, folder, target, {"recipe": recipe, "missing": json.dumps(missing)})

    for notice in notices:
        show(notice)
    _warn(missing, "the other pieces are built")
    return target


def build_reference(
    data: str | Path = "data",
    *,
    pieces: Sequence[Piece] = REFERENCE,
    force: bool = False,
    maker: Maker | None = None,
    timeout_s: float = 600.0,
    n_workers: int = 2,
) -> Path:
    """Build the reference corpus under `data`/reference, unless it is there already; returns that
    folder.

    Writes `musicnet_11khz_{train,valid,test}.h5`, the same bytes each time, whole or not at all,
    since runs are compared on it. Arguments as in `build`.

    Raises:
        IncompleteCorpusWarning, RuntimeError: some piece could not be made; nothing is written.
    """
    target = Path(data) / "reference"
    folder = Path(data) / ".reference"
    names = [file_11khz(split) for split in SPLITS]
    if not force and _attributes(target, names, fingerprint(pieces)) is not None:
        jobs.remove_left(folder)
        return target

    with _emptied(folder) as staging:
        with warnings.catch_warnings():
            warnings.simplefilter("error", IncompleteCorpusWarning)
            built = build(
                staging, pieces=pieces, maker=maker, timeout_s=timeout_s, n_workers=n_workers
            )

        target.mkdir(exist_ok=True)
        for name in names:
            move(built / name, target / name)
    return target


@contextlib.contextmanager
def _emptied(folder: Path) -> Iterator[Path]:
    """The folder for this build alone, without what a killed one has left; removed at the end."""
    with jobs.locked(folder):
        for left in folder.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def fingerprint(pieces: Sequence[Piece]) -> str:
    """A sha256 of all that a corpus is made from: the pieces, the code, the sound font and the
    libraries' versions.
    """
    here = Path(__file__).parent
    code = [here / name for name in _CODE]
    code += [Path(module.__file__ or "") for module in (corpora, hdf5, recordings, resample)]
    libraries = ("music21", "symusic", "soxr", "numpy", "h5py")

    digest = hashlib.sha256(repr((SEED, tuple(pieces))).encode())
    for path in (*code, soundfont.path()):
        digest.update(path.read_bytes())
    digest.update(repr([importlib.metadata.version(name) for name in libraries]).encode())
    return digest.hexdigest()


def make(piece: Piece, font: Path, result: Path) -> None:
    """Read, perform and record one piece; write it at both rates to `result`, an .npz file."""
    import music21

    from . import performance, render, score

    generator = np.random.default_rng([SEED, int(piece.key.removeprefix("id_"))])
    source = Path(music21.__file__).parent / "corpus" / piece.source
    # a third more than is played at the piece's tempo: the score's own marks may be faster
    quarters = 1.3 * piece.seconds * piece.quarter_bpm / 60.0

    written, marks = score.read(source, quarters=quarters)
    played = performance.perform(written, marks, piece=piece, generator=generator)
    full = render.record(played, piece=piece, font=font, generator=generator)
    low = downsample(full)

    np.savez(
        result,
        full=full.data,
        full_labels=full.labels,
        low=low.data,
        low_labels=low.labels,
        dropped=np.array(played.dropped),
    )


def _make_all(
    pieces: Sequence[Piece], maker: Maker, folder: Path, timeout_s: float, n_workers: int
) -> tuple[list[Piece], list[str]]:
    """The pieces that were made, `folder`/<key>.npz each, and a line for each of the others that
    says why not.
    """
    font = folder / "in-tune.sf2"
    font.write_bytes(soundfont.in_tune(soundfont.path().read_bytes()))
    arguments = [(piece, font, folder / f"{piece.key}.npz") for piece in pieces]

    reasons: dict[str, str] = {}  # by key
    with bar(total=len(pieces), desc="corpus", unit="piece") as shown:
        made = jobs.run(
            maker, arguments, n_workers=n_workers, timeout_s=timeout_s, preload=_PRELOAD
        )
        for k, future in made:
            reason = jobs.failure(future, timeout_s)
            if reason is None and not arguments[k][2].is_file():
                reason = "left no result"
            if reason is not None:
                reasons[pieces[k].key] = f"{pieces[k].name}: {reason}"
            shown.update()

    ready = [piece for piece in pieces if piece.key not in reasons]
    return ready, [reasons[piece.key] for piece in pieces if piece.key in reasons]


def _refuse_losses(
    target: Path, pieces: Sequence[Piece], missing: Sequence[str], missing_there: Sequence[str]
) -> None:
    """Raise RuntimeError where pieces are missing that the same corpus, built earlier, has."""
    losses = [
        line
        for line in missing
        if not any(
            line.startswith(piece.name) and text.startswith(piece.name)
            for piece in pieces
            for text in missing_there
        )
    ]
    if losses:
        lines = "\n  ".join(losses)
        raise RuntimeError(
            f"{target}: left as it is, since it has pieces that could not be made now:\n  {lines}"
        )


def _recording(piece: Piece, folder: Path, rate: str) -> Recording:
    """The recording of `piece` at the rate "full" or "low"."""
    texts = (piece.composer, piece.composition, piece.movement, piece.ensemble)
    with np.load(folder / f"{piece.key}.npz", allow_pickle=False) as arrays:
        return Recording(piece.key, arrays[rate], arrays[f"{rate}_labels"], *texts)


def _out_of_range(pieces: Sequence[Piece], folder: Path) -> Iterator[str]:
    for piece in pieces:
        with np.load(folder / f"{piece.key}.npz", allow_pickle=False) as arrays:
            if arrays["dropped"]:
                yield f"{piece.name}: {int(arrays['dropped'])} notes outside 21..104 left out"


def _write_all(
    pieces: Sequence[Piece], folder: Path, target: Path, attributes: dict[str, str]
) -> None:
    """Write the four files; `musicnet.h5` last, since a corpus counts as built once it is there."""
    for split in SPLITS:
        low = (_recording(piece, folder, "low") for piece in pieces if piece.split == split)
        hdf5.write(target / file_11khz(split), low, rate_hz=TARGET_HZ, attributes=attributes)

    full = (_recording(piece, folder, "full") for piece in pieces)
    hdf5.write(target / FULL, full, rate_hz=SOURCE_HZ, attributes=attributes)


def _attributes(folder: Path, names: Sequence[str], recipe: str) -> dict[str, object] | None:
    """The attributes of the corpus in `folder`; None unless every file is there and was made by
    this recipe, in one build.
    """
    try:
        attributes = [recordings.attributes(folder / name) for name in names]
    except (FileNotFoundError, recordings.RecordingError):
        return None

    made = {(own.get("recipe"), own.get("missing")) for own in attributes}
    return attributes[0] if len(made) == 1 and attributes[0].get("recipe") == recipe else None


def _warn(missing: Sequence[str], advice: str) -> None:
    if missing:
        lines = "\n  ".join(missing)
        text = f"{len(missing)} pieces are not in the demo corpus; {advice}:\n  {lines}"
        warnings.warn(text, IncompleteCorpusWarning, stacklevel=3)
