"""Telemetry sessions of the Monitor: samples, annotations and totals."""
