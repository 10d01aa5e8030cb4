"""A start that waits for Enter after each of its steps: `vmctl up --step` and `run --step`."""
