"""Manifests: their schema, all their faults at once, and grids of them."""

from .checks import Vocabulary
from .errors import ManifestError, ManifestNotFoundError
from .read import Manifest, Stage, load, parse
