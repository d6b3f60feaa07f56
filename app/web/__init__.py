"""The deck in a browser."""
