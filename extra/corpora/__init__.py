"""Builders of corpora: MusicNet from its archive, and rendered scores in its layout."""
