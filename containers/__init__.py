"""Backends `container` and `host`: a process start with namespaces, or without any."""
