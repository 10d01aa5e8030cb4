"""What the store takes of the disk, what can be removed, and what a first start needs."""
