"""Our own cost compared with other programs: the same root file system, namespaces and command, in the same rounds.

`vmctl bench peers` runs this. Each contender is timed from just before it is asked to start.
"""
