"""MusicNet itself: from the published archive, or what people hold of it, to `musicnet.h5` and the
three 11 kHz files.

`python -m extra.corpora.archive` does all of it; extra/get_datasets.ipynb shows it step by step.
"""

from cplxnet.extras import extra

with extra("corpora"):
    from .build import Built, build
    from .download import DownloadError, fetch
    from .errors import ArchiveError, DiskFullError
    from .published import ARCHIVE, METADATA, obtain, obtain_metadata, split_of
    from .sources import open_source

__all__ = [
    "ARCHIVE",
    "METADATA",
    "ArchiveError",
    "Built",
    "DiskFullError",
    "DownloadError",
    "build",
    "fetch",
    "obtain",
    "obtain_metadata",
    "open_source",
    "split_of",
]
