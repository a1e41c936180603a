"""Sweeps: the runs of a whole table, as one command, on this machine or a cluster."""
