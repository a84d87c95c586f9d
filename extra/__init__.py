"""Beside the package: notebooks with the modules that serve them, corpora and benchmarks; run from a checkout."""
