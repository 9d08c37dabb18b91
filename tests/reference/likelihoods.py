"""The likelihoods beyond Bernoulli and Gaussian."""
