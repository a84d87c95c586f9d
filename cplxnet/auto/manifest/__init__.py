"""Manifests: their schema, all their faults at once, and grids of them."""

from .errors import ManifestError, ManifestNotFoundError
from .read import load, parse
from .schema import Manifest, Stage
from .vocabulary import Vocabulary
