"""Building images: a recipe or a Dockerfile in, layers and a configuration out.

Two front ends (`recipe`, `dockerfile`) return a `BuildFile`; `builder` takes its steps one by one.
"""
