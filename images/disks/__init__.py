"""Disks as images, and the file systems on them."""
