"""Reports on sessions as lines of text and as Markdown."""
