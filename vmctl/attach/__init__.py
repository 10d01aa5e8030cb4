"""Callers at the streams of a running workload or command: the caller's side, and the side of who has the streams."""
