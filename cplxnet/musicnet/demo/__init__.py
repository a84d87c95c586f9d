"""The demo corpus: real scores, rendered, in MusicNet's layout. `python -m cplxnet.musicnet.demo` builds it."""

from cplxnet.musicnet.demo.corpus import IncompleteCorpusWarning, build, file_11khz

__all__ = ["IncompleteCorpusWarning", "build", "file_11khz"]
