"""Comparison and statistics of sessions."""
