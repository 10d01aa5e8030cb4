"""The log of a workload: its format, its writer, and what is found in it."""
