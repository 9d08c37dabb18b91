"""The hierarchical VAE, and its guides."""

from ppdgm.models.hierarchical.program import HierarchicalVAE

__all__ = ["HierarchicalVAE"]
