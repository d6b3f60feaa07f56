"""Paths, memory, NIXL agents and the measuring loop."""
