"""Disk usage of the store, removal of unused data, and the images and kernels for a first start."""
