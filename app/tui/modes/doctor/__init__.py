"""The Doctor mode."""
