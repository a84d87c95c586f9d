"""Manifests: their schema, all their faults at once, and grids of them."""
