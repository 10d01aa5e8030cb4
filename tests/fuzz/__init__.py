"""Hostile inputs for every parser: each may refuse its input with an error of vmctl, and may do nothing else.

`targets` are the parsers, `mutate` makes inputs from good ones, `check` runs one input. The short form is
tests/test_fuzz.py; the long form, guided by the code that an input reaches, is `make fuzz`.
"""
