"""Plain text that both faces print: neither click nor textual."""
