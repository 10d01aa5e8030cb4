"""Copy files between the host and an instance, as a tar between two processes that do not trust each other."""
