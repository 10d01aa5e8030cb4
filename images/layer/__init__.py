"""Layers: trees of files, their tars, and the EROFS files that every mode reads."""
