"""Stacks: several workloads from one file, in the native form and in that of Compose files.

A file is read into a tree of items that know their place (`yamltree`, `variables`, `reading`, `merging`), translated
into workloads (`service` and its neighbours), ordered and compared with what runs (`graph`, `clashes`, `changes`),
and started by a process per instance (`workers`, `running`).
"""
