"""Programs that Pyro and NumPyro publish, as their authors wrote them: which come in as they are, and which do not."""
