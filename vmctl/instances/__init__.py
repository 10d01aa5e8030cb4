"""Instances on disk: their folder, state, limits, and the way each of them is taken away."""
