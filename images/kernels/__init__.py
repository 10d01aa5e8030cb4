"""Kernels for guests, their modules, and the initrd."""
