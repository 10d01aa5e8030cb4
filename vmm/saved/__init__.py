"""Guests on disk: the memory, the devices and the disk of a running guest, and guests that begin with them."""
