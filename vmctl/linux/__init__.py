"""What this machine offers to any mode."""
