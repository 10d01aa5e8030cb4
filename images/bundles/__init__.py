"""Bundles: images, a kernel and busybox in one file, for machines without a network."""
