"""Backends `container` and `host`: start a process with namespaces, or without."""
