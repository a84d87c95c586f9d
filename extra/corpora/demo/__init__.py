"""The demo corpus: real scores, rendered, in MusicNet's layout. `python -m extra.corpora.demo`
builds it.
"""

from cplxnet.extras import extra

with extra("corpora"):
    from .build import IncompleteCorpusWarning, build, build_reference

__all__ = ["IncompleteCorpusWarning", "build", "build_reference"]
