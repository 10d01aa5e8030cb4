"""The Python API: what `import vmctl` gives to programs.

The engine changes its process: umask, signals, namespaces of an ordinary user, forks. None of that may happen to a
program that uses the API, which may have threads. So each call is a request to a process of vmctl without threads
(`server.py`), which forks a process per request (`worker.py`). That is what a command line is too: one process, with
the directory and the variables of its caller.
"""
