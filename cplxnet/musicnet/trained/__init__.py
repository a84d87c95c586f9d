"""Trained networks that come with the package, as compact files; `README.md` is their card."""

from pathlib import Path

NETWORKS = {path.stem: path for path in sorted(Path(__file__).parent.glob("*.safetensors"))}
DEFAULT = "181-times"


def find(name: str) -> Path:
    """The file of a network in `NETWORKS`; any other name is a path."""
    return NETWORKS.get(name, Path(name))
