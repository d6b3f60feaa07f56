"""Child processes: worker, doctor and foreign programs; start, time limits and end."""
