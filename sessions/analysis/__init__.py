"""Comparing sessions."""
