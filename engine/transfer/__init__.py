"""Runs of transfer benchmarks: trials, preflight checks, tuning, and the worker process."""
