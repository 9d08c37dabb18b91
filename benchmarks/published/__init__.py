"""Programs that Pyro and NumPyro publish, as their authors wrote them: which of them work unchanged, which don't."""
