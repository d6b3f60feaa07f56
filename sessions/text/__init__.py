"""Reports of sessions as lines of text and as Markdown."""
