"""The demo corpus: real scores, rendered, in MusicNet's layout. `python -m extra.corpora.demo` builds it."""

from .corpus import IncompleteCorpusWarning, build, file_11khz

__all__ = ["IncompleteCorpusWarning", "build", "file_11khz"]
