"""What a user writes: the workload, its file, the rules and the words for what is wrong with it."""
