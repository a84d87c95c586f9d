"""Notebooks with a module of their name, builders of corpora, benchmarks; run from a checkout."""
