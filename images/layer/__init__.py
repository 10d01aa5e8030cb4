"""Layers: file trees, their tars, and the EROFS files that every mode reads."""
