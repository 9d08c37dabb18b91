"""Backends, each in its own package. Nothing here imports one: `ppdgm.registry` does, by name."""
