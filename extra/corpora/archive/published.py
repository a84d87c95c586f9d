"""What is published: where MusicNet lies, how its files are recognised, and which recording belongs to which split.

Reference: Thickstun, Harchaoui, Kakade (2017), "Learning features of music from scratch"; Zenodo record 5120004 (CC BY
4.0).
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Remote:
    """A published file: `address`, local `name`, `size` in bytes (None: unknown) and `md5` (hexadecimal)."""

    address: str
    name: str
    size: int | None
    md5: str | None


_RECORD = "https://zenodo.org/records/5120004/files"
ARCHIVE = Remote(
    f"{_RECORD}/musicnet.tar.gz?download=1",
    "musicnet.tar.gz",
    11_097_394_998,
    "844764911fa0d5b97c97da944a057590",
)
METADATA = Remote(
    f"{_RECORD}/musicnet_metadata.csv?download=1",
    "musicnet_metadata.csv",
    None,
    "1caef62cee9c875235e62aac368b49d8",
)

# Trabelsi et al. (2018), as Nazarov and Burnaev (2020): the archive's own test_data has 10, of which 7 train here
_TEST = frozenset({2303, 2382, 1819})
_VALID = frozenset({2131, 2384, 1792, 2514, 2567, 1876})
SPLITS = ("train", "valid", "test")
EXPECTED = {"train": 321, "valid": 6, "test": 3}  # recordings of MusicNet in each


def split_of(number: int) -> str:
    """The split that recording `number` belongs to: test or valid by its id, train for any other."""
    return "test" if number in _TEST else "valid" if number in _VALID else "train"
