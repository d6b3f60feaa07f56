"""The deck, kvdeck's terminal UI: screens, widgets and the connection to the engine."""
