"""The deck: screens, widgets and what keeps them in touch with the engine."""
