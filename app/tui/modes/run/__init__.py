"""The Run mode."""
