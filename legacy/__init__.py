"""The first grid search, and the translation of older manifests; run from a checkout."""
