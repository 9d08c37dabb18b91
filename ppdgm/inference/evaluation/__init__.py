"""A trained program, and everything that it can be asked."""
