"""Building images: a recipe or a Dockerfile in, layers and a configuration out.

Two front ends (`recipe`, `dockerfile`) say the same thing, a `Plan`; `builder` takes its steps one by one.
"""
