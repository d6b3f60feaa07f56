"""Where sessions lie, and how they are written and read."""
