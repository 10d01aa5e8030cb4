"""Measuring: the same workload in several modes side by side, and our own cost compared with other programs.

Everything here uses the engine only, never the code of a backend.
"""
