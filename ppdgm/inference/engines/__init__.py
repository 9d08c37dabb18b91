"""Engines: what a step of training maximises, which parameters it moves, and how fast."""
