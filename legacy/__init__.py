"""The first grid search, and what reads manifests of the older systems; run from a checkout."""
