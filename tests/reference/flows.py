"""Flows: posteriors and priors made of them."""
