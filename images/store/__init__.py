"""The image store: bytes, names and who uses them. It never reads an instance."""
