"""Measuring: the same workload in several modes side by side, and our own cost beside that of others.

Everything here sees the engine only, never a backend's own code.
"""
