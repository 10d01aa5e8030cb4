"""Debian packages, unpacked without installing them."""
