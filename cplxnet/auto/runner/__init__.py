"""One run of a manifest: its stages in turn, its folder, its checkpoints, its lock."""
