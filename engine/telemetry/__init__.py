"""Telemetry sources: counters of serving engines, NIXL and the host for KV-cache transfers."""
