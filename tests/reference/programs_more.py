"""Labelled programs, mixtures, factor analysis."""
