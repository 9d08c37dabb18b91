"""Discrete latents."""
