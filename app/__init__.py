"""The terminal: command line, Textual app, screens, widgets."""
