"""Widgets on Textual's Line API that repaint only what differs."""
