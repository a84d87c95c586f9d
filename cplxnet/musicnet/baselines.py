"""Published average precision on MusicNet, and whether a score was taken on its test recordings."""

from pathlib import Path, PurePosixPath

import h5py

# of Trabelsi et al. 2018 and all who followed them
TEST = frozenset({"id_2303", "id_2382", "id_1819"})
FILE = "musicnet_11khz_test.h5"

# Protocols differ (README). Nazarov and Burnaev give a range of compressions, in a figure.
SCORES = {
    "Trabelsi 2018, real": 0.696,
    "Trabelsi 2018, complex": 0.729,
    "Yang 2020": 0.742,
    "Thickstun 2018": 0.773,
}


def published(
    file: str, *, data: str | Path = "data", older_protocol: bool = False
) -> dict[str, float]:
    """`SCORES` where a score was taken on MusicNet's test recordings, else nothing.

    The recordings in the file tell. Where the file is not there (results looked at on another
    machine), MusicNet is what has the standard name at the top of the data folder (the demo corpora
    lie in folders of their own) and recordings long enough for the protocol of Trabelsi et al.:
    7500 windows each.

    Args:
        file: that was scored, relative to the data folder, as manifests have it.
        data: the data folder.
        older_protocol: whether there is a score by that protocol too.
    """
    path = Path(data) / file
    if not path.is_file():
        is_musicnet = older_protocol and str(PurePosixPath(file)) == FILE
        return dict(SCORES) if is_musicnet else {}

    try:
        with h5py.File(path, "r") as opened:
            return dict(SCORES) if set(opened) == TEST else {}
    except OSError:  # no HDF5: whoever trains on it is told
        return {}
