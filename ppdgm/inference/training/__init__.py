"""A training run, from `fit` to its result."""
