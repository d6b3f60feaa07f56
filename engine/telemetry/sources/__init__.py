"""Telemetry sources, one module per kind."""
