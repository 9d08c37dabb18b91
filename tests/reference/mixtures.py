"""Mixture priors, full-covariance and location-scale posteriors."""
