"""What is kept of a run: its recipe, its settings, its folder, its checkpoints, its progress."""
