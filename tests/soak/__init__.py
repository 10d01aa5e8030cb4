"""Random cycles of commands with SIGKILL at random moments; after each, the host must be as before."""
