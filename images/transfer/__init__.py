"""Import and export of images: archives, layouts and registries."""
