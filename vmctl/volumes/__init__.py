"""Volumes: files that outlive the root of an instance. Only a start with volumes imports this folder."""
