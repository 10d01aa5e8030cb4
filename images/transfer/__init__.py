"""Images on their way in and out: archives, layouts and registries."""
