"""Formats of other programs, and exports."""
