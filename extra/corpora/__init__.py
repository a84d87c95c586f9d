"""Corpora: MusicNet from its archive, rendered scores in its layout, and what a corpus holds."""
