"""Debian packages, fetched and unpacked without installing them."""
