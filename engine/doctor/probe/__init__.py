"""Probes: small real transfers that test a backend, run in a child process that may hang or crash."""
