"""The same workload in several modes, side by side: what differs and what is the same, seen from inside and outside."""
