"""Metric definitions, one module per exporter; `definitions.py` combines them into one table."""
