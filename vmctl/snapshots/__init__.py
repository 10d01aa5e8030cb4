"""Snapshots of instances, and clones: new instances that begin with the files, and perhaps the processes, of one."""
