"""Interfaces of the Linux kernel, used by every mode."""
