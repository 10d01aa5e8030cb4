"""Hand-ins: the record of a run of labs, its report, and its check by a machine."""
