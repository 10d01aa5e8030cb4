"""Our own cost beside that of others: the same root file system, namespaces and command, in the same rounds.

`vmctl bench --peers` runs this; each contender is timed from just before it is asked to start.
"""
