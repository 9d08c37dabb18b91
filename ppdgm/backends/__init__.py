"""Backends, each in a package of its own. Nothing here imports one: `ppdgm.registry` does, by name."""
