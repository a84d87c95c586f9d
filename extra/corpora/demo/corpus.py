"""Build the demo corpus: every piece in a process of its own, then the HDF5 files from what came back."""

import hashlib
import importlib.metadata
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from cplxnet.musicnet import recordings, resample
from cplxnet.musicnet.recordings import Recording
from cplxnet.musicnet.resample import SOURCE_HZ, TARGET_HZ, downsample

from . import soundfont, workers
from .pieces import PIECES, SPLITS, Piece

SEED = 20170318
FULL = "musicnet.h5"  # every recording at 44.1 kHz
_RECIPE = (
    "pieces.py",
    "excerpt.py",
    "performance.py",
    "render.py",
    "soundfont.py",
    "corpus.py",
)
_PRELOAD = (
    "music21",
    "extra.corpora.demo.corpus",
    "extra.corpora.demo.performance",
    "extra.corpora.demo.render",
)
Maker = Callable[[Piece, Path, Path], None]


class IncompleteCorpusWarning(UserWarning):
    """Some pieces of the demo corpus could not be made; the text names them."""


def file_11khz(split: str) -> str:
    """The name of a split's file at 11 kHz."""
    return f"musicnet_11khz_{split}.h5"


def fingerprint(pieces: Sequence[Piece] = PIECES) -> str:
    """A sha256 over all that the corpus is made from: pieces, code, sound font and the libraries' versions."""
    here = Path(__file__).parent
    digest = hashlib.sha256(repr((SEED, tuple(pieces))).encode())
    for path in (
        *(here / name for name in _RECIPE),
        Path(recordings.__file__),
        Path(resample.__file__),
    ):
        digest.update(path.read_bytes())
    digest.update(soundfont.path().read_bytes())
    digest.update(
        repr(
            [importlib.metadata.version(p) for p in ("music21", "symusic", "soxr", "numpy", "h5py")]
        ).encode()
    )
    return digest.hexdigest()


def make(piece: Piece, font: Path, result: Path) -> None:
    """Read, perform and record one piece; write it at both rates to `result`, an .npz file."""
    import music21

    from . import performance, render

    generator = np.random.default_rng([SEED, int(piece.key.removeprefix("id_"))])
    score = Path(music21.__file__).parent / "corpus" / piece.source
    quarters = (
        1.3 * piece.seconds * piece.quarter_bpm / 60.0
    )  # more than is played, should the score's own marks be faster
    played = performance.perform(
        *performance.read(score, quarters=quarters), piece=piece, generator=generator
    )
    full = render.record(played, piece=piece, font=font, generator=generator)
    low = downsample(full)
    dropped = np.array(played.dropped)
    np.savez(
        result,
        full=full.data,
        full_labels=full.labels,
        low=low.data,
        low_labels=low.labels,
        dropped=dropped,
    )


def _load(piece: Piece, folder: Path, rate: str) -> Recording:
    with np.load(folder / f"{piece.key}.npz", allow_pickle=False) as made:
        texts = (piece.composer, piece.composition, piece.movement, piece.ensemble)
        return Recording(piece.key, made[rate], made[f"{rate}_labels"], *texts)


def _make_all(
    pieces: Sequence[Piece], maker: Maker, folder: Path, timeout_s: float
) -> tuple[list[Piece], list[str]]:
    """(pieces that were made, why the others were not); results and the sound font lie in `folder`."""
    font = folder / "in-tune.sf2"
    font.write_bytes(soundfont.in_tune(soundfont.path().read_bytes()))
    jobs = [(piece, font, folder / f"{piece.key}.npz") for piece in pieces]
    failed: dict[int, str] = {}
    with tqdm(total=len(jobs), desc="demo corpus", unit="piece") as bar:
        for k, why in workers.run(
            maker, jobs, folder=folder, timeout_s=timeout_s, preload=_PRELOAD
        ):
            if why is None and not jobs[k][2].is_file():
                why = "left no result"
            if why is not None:
                failed[k] = f"{pieces[k].name}: {why}"
            bar.update()
    return [piece for k, piece in enumerate(pieces) if k not in failed], [
        failed[k] for k in sorted(failed)
    ]


def _dropped(pieces: Iterable[Piece], folder: Path) -> Iterator[str]:
    for piece in pieces:
        with np.load(folder / f"{piece.key}.npz", allow_pickle=False) as made:
            if made["dropped"]:
                yield f"{piece.name}: {int(made['dropped'])} notes outside 21..104 left out"


def _write_all(
    pieces: Sequence[Piece], folder: Path, target: Path, attributes: dict[str, str]
) -> None:
    for split in SPLITS:
        chosen = [piece for piece in pieces if piece.split == split]
        low = (_load(piece, folder, "low") for piece in chosen)
        recordings.write(target / file_11khz(split), low, rate_hz=TARGET_HZ, attributes=attributes)
    full = (_load(piece, folder, "full") for piece in pieces)
    recordings.write(
        target / FULL, full, rate_hz=SOURCE_HZ, attributes=attributes
    )  # last: it says that all is there


def _built(target: Path, recipe: str) -> dict[str, object] | None:
    """The attributes of the corpus in `target` where it is whole and was made by this recipe."""
    found = None
    for name in (*map(file_11khz, SPLITS), FULL):
        try:
            found = recordings.attributes(target / name)
        except (FileNotFoundError, recordings.RecordingError):
            return None
        if found.get("recipe") != recipe:
            return None
    return found


def _warn(missing: Sequence[str], advice: str) -> None:
    if missing:
        lines = "\n  ".join(missing)
        warnings.warn(
            f"{len(missing)} pieces are not in the demo corpus; {advice}:\n  {lines}",
            IncompleteCorpusWarning,
            3,
        )


def build(
    data: str | Path = "data",
    *,
    pieces: Sequence[Piece] = PIECES,
    force: bool = False,
    maker: Maker = make,
    timeout_s: float = 60.0,
) -> Path:
    """Build the demo corpus under `data`/demo, unless it is there already; returns that folder.

    Writes `musicnet.h5` (44.1 kHz) and `musicnet_11khz_{train,valid,test}.h5`, the same bytes each time.
    A piece whose process fails, hangs for `timeout_s` seconds or is killed is left out and named in a warning.

    Raises
    ------
    RuntimeError: no piece of a split could be made.
    """
    target, recipe = Path(data) / "demo", fingerprint(pieces)
    found = None if force else _built(target, recipe)
    if found is not None:
        _warn(json.loads(str(found["missing"])), "--force tries them again")
        return target
    target.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".build-", dir=target))
    try:
        made, missing = _make_all(pieces, maker, folder, timeout_s)
        empty = [split for split in SPLITS if not any(piece.split == split for piece in made)]
        if empty:
            raise RuntimeError(
                f"expected pieces in every split, got none in {', '.join(empty)}: {'; '.join(missing)}"
            )
        notices = list(_dropped(made, folder))
        _write_all(made, folder, target, {"recipe": recipe, "missing": json.dumps(missing)})
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for notice in notices:
        tqdm.write(notice)
    _warn(missing, "the rest is built")
    return target
