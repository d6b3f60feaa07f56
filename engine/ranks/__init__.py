"""Ranks: the processes of one run, their rendezvous and their calls."""
