"""The image store: files, names, and leases of their users. It never reads an instance."""
